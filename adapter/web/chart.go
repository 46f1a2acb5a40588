package web

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
)

// chart is a bar chart: one column for each label, in which the series are stacked.
type chart struct {
	// ID is unique on the page; Title and Description stand in for the drawing.
	ID, Title, Description string
	Labels                 []string
	Series                 []series
	// Latest is true where the last column is the one that people want to see first.
	Latest bool
}

// series are the values of one colour. The class is a tone's, or "plain".
type series struct {
	Name, Class string
	Values      []int64
}

// Total is the sum of the values.
func (s series) Total() int64 {
	var n int64
	for _, v := range s.Values {
		n += v
	}
	return n
}

// Measures of a chart, in the drawing's own units.
const (
	chartWidth  = 1040
	chartHeight = 220
	chartLeft   = 64
	chartTop    = 14
	chartBottom = 30
	// chartLabels is about how many columns are labelled.
	chartLabels = 12
)

// SVG draws the chart.
func (c chart) SVG() template.HTML {
	var d drawing
	d.open(c.ID, chartWidth, chartHeight, c.Title, c.Description)
	tallest := int64(0)
	for i := range c.Labels {
		var sum int64
		for _, s := range c.Series {
			sum += s.Values[i]
		}
		tallest = max(tallest, sum)
	}
	step := roundStep(tallest)
	top := max((tallest+step-1)/step*step, step)
	bottom := float64(chartHeight - chartBottom)
	scale := (bottom - chartTop) / float64(top)
	for v := int64(0); v <= top; v += step {
		y := bottom - float64(v)*scale
		d.add(`<line x1="%d" y1="%[2]s" x2="%[3]d" y2="%[2]s" class="grid"/>`, chartLeft, px(y), chartWidth-8)
		d.text(chartLeft-8, y+4, "axis value", grouped(int(v)))
	}
	if len(c.Labels) == 0 {
		return d.close()
	}
	column := float64(chartWidth-8-chartLeft) / float64(len(c.Labels))
	width := math.Max(column*0.72, 1)
	every := (len(c.Labels) + chartLabels - 1) / chartLabels
	for i, label := range c.Labels {
		x := chartLeft + float64(i)*column + (column-width)/2
		y := bottom
		var parts []string
		for _, s := range c.Series {
			if v := s.Values[i]; v > 0 {
				parts = append(parts, fmt.Sprintf("%s %s", grouped(int(v)), s.Name))
			}
		}
		if len(parts) > 0 {
			d.add(`<g><title>%s</title>`, html.EscapeString(label+": "+strings.Join(parts, ", ")))
			for _, s := range c.Series {
				if v := s.Values[i]; v > 0 {
					// What is there is seen, however little it is.
					h := math.Max(float64(v)*scale, 1.5)
					y -= h
					d.add(`<rect x="%s" y="%s" width="%s" height="%s" class="column %s"/>`, px(x), px(y), px(width), px(h), s.Class)
				}
			}
			d.add(`</g>`)
		}
		if i%every == 0 {
			d.text(x+width/2, chartHeight-10, "axis", label)
		}
	}
	return d.close()
}

// roundStep divides up to a value in at most five round steps.
func roundStep(tallest int64) int64 {
	for unit := int64(1); ; unit *= 10 {
		for _, s := range []int64{1, 2, 5} {
			if s*unit*5 >= tallest {
				return s * unit
			}
		}
	}
}
