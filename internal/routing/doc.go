// Package routing says which route takes a call, and what a route changes about it before anybody else sees it: the
// target (Rewrite), header fields (HeaderEdit), or the answer as a whole (Redirect, Answer). It is pure: values in,
// values out, no network and no clock.
//
// The routes are asked in the order of the file, and the first whose Match takes the call has it. Table gives the same
// answer as asking them one by one, without asking them all: it finds the candidates by host and by the segments of the
// path, in a tree, and stops where only later routes are left.
//
// # Paths
//
// Paths are compared segment by segment in their canonical form: every percent-encoded byte is decoded, except %2F and
// %25, so that an encoded slash parts no segments and an encoded percent sign starts no code. /a%2Fb has one segment,
// /%61 is /a. Nothing else is changed: neither repeated slashes nor case. What is sent on is what the client wrote, unless a
// Rewrite says otherwise, so that the upstream sees the path that was matched.
//
// A pattern is made of whole segments, as in net/http: a literal; {name}, which takes one segment that is not empty; and at the end
// {name...}, which takes the rest, maybe empty. Unlike in net/http a pattern takes the whole path, also when it ends in /.
//
// # Templates
//
// Where a setting is called a template, {name} stands for what a pattern captured, {request.host}, {request.path},
// {request.query}, {request.scheme} and {request.method} for the call's own, and {{ and }} for braces. What is put in is
// escaped for the place where it stands; it can neither add a segment, a parameter or a field, nor end a line.
package routing
