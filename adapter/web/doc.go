// Package web serves the pages: what needs attention, users and their history, the
// story around any id, calls, reconciliation runs, deliveries, projections and the
// log.
//
// Pages are made on the server, diagrams included, and can be read without
// JavaScript. They load nothing from elsewhere, and a Content-Security-Policy that
// allows no inline style or script holds them to it. Everything that came from
// outside is escaped by html/template, and every list is bounded and pages by cursor.
//
// # Who may look
//
// The rules are the API's. Without a token the pages are served to this machine only.
// With one, people sign in with it and get a session cookie, which is not the token:
// see [TokenAccess]. What changes something is a POST that a browser must have sent
// from one of these pages.
package web
