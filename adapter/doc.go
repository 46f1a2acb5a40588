// Package adapter is keytrail's domain vocabulary: the events it records, the
// streams they live on, who caused them and why, the user aggregate that is folded
// from them, and the error codes that every surface speaks.
//
// The packages below it are the use cases (inbound, interpret, outbound,
// reconcile, trace) and the surfaces (httpapi, web). They import this package and
// the event store, and not each other.
package adapter
