package audit

// Statement is the query of one page, for tests of how databases answer it.
var Statement = statement
