package trace

import (
	"io"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

var sentenceWords = map[SentenceKind]string{
	SentenceFailedStep: "where", SentenceClass: "why", SentenceKeycloak: "Keycloak", SentenceTried: "tried",
	SentenceNow: "now", SentenceAlso: "also", SentenceNext: "next", SentenceNote: "note",
}

// WriteExplanation writes an explanation for a person: how the story ended; then the
// sentences, each with the number of the event that it rests on; then those events.
func WriteExplanation(w io.Writer, x Explanation, o Options) error {
	p := newPage(o)
	if len(x.Sentences) == 0 {
		p.WriteString("Nothing is known of this story.\n")
		return p.writeTo(w, "the explanation")
	}
	numbers := map[uuid.UUID]int{}
	var events []uuid.UUID
	columns := 0
	for _, s := range x.Sentences {
		if numbers[s.EventID] == 0 {
			events = append(events, s.EventID)
			numbers[s.EventID] = len(events)
		}
		columns = max(columns, len(sentenceWords[s.Kind]))
	}
	status := strings.ToUpper(string(x.Status))
	before := SentenceKind("")
	for i, s := range x.Sentences {
		text := s.Text + " [" + strconv.Itoa(numbers[s.EventID]) + "]"
		if s.Kind == SentenceOutcome {
			lead := p.paint(statusStyle[x.Status], status) + "  "
			if i > 0 {
				lead = strings.Repeat(" ", len(status)+2)
			}
			p.line(lead, len(status)+2, bold, text)
			continue
		}
		if before == "" {
			p.WriteByte('\n')
		}
		name := sentenceWords[s.Kind]
		if s.Kind == before {
			name = ""
		}
		before = s.Kind
		mark := dim
		if s.Kind == SentenceNext {
			mark = yellow
		}
		p.line("  "+p.paint(mark, pad(name, columns))+"  ", columns+4, plain, text)
	}
	p.WriteByte('\n')
	for i, id := range events {
		p.line("  ", 2, dim, "["+strconv.Itoa(i+1)+"] event "+id.String())
	}
	p.line("  ", 2, dim, "keytrail trace "+x.CorrelationID.String()+" shows the whole story")
	return p.writeTo(w, "the explanation")
}
