package analytics

import "github.com/keytrail/keytrail/adapter"

// Statement is the query of one metric, for tests of how databases answer it.
func Statement(query adapter.AnalyticsQuery, metric string) (string, []any, error) {
	s, err := newSummary(query)
	if err != nil {
		return "", nil, err
	}
	text, args := s.statement(metric)
	return text, args, nil
}
