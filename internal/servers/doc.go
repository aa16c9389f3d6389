// Package servers starts the servers that a try-out or a test needs, PostgreSQL, Redis and NATS, from the machine's own
// packages, each on a free port of loopback with a folder of its own, and takes them away again.
//
// When to use: something is to be tried on the real server, and nothing of it is to be kept. When not: for a server whose
// data matter. What makes them quick to start and stop, no fsync and an end without a farewell, would lose them.
//
// Nothing stays behind. A server runs under a small shell script, its guard, which waits until the pipe to the program that
// started it is closed, and then ends the server and removes the folder. [Server.Stop] closes that pipe, and so does the
// kernel when the program is gone, for whatever reason, SIGKILL included.
//
// As root, PostgreSQL is run by the user postgres, or nobody where there is no such user, because it refuses to be run by root.
// POSIX systems only. Servers listen on 127.0.0.1 without a password: whoever may use this machine may use them while they run.
package servers
