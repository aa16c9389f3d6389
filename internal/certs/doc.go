// Package certs is who proves what on a connection: the certificates that a listener shows, the clients that it
// believes, and the same towards upstreams.
//
// A Server is compiled from a ServerConfig and never changes; a program that reloads compiles another and swaps the
// pointer, so that a file that cannot be read leaves the last good Server in force. Changed tells when a file is not what
// it was. An Issuer gets certificates by ACME (RFC 8555) for the hosts that are listed, never for a name that a client
// came up with: orders on demand let anybody spend the account's quota.
//
// Which certificate a client sees (RFC 6066 section 3): the one for exactly the name it asks for, then a wildcard one,
// then the first of the list. Of several for the same name, the first that the client can verify.
//
// Nothing here owns a goroutine or a clock, an Issuer between Start and Close apart.
package certs
