package bench

// Scaled shortens every slice, and tells of each that counts.
func Scaled(o Options, scale float64, observe func(round int, side string)) Options {
	o.scale, o.observe = scale, observe
	return o
}

// Figures for tests of their own.
var (
	Median   = median
	Quantile = quantile
)
