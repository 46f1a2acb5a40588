package webhook

// TooDeep reports that JSON is nested deeper than MaxDepth. It does not care
// whether it is JSON at all.
func TooDeep(body []byte) bool { return nesting(body) > MaxDepth }
