// Package interop speaks of objectives in the words of other tools: it reads OpenSLO, and writes rules for Prometheus and
// dashboards for Grafana.
//
// The gateway judges its objectives by itself and needs none of these. Rules and dashboards are for those who have a
// Prometheus anyway, keep its history, or want one place for all alerts. Their arithmetic is that of package slo, with one
// difference: Prometheus has no Poisson distribution, so its guard for low traffic is an approximation (see guard).
package interop
