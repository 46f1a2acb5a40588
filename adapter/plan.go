package adapter

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// PlanStep is one of the further calls of a business action of several, as
// ApiCallRequested.Plan names it: "user.role.add auditor, clerk".
type PlanStep struct {
	// Command is the call's own command.
	Command string
	// Names are what the user is to be given, by the names that the command takes.
	Names []string
	// Client is the client id whose roles they are, empty for anything else.
	Client string
}

// StepCallID is the id of a further call of a business action, counted from 1: it
// follows from the first call's, so that whoever repeats the request, or looks what
// became of it, finds the step.
func StepCallID(first uuid.UUID, requestedAt time.Time, ordinal int) uuid.UUID {
	return eventstore.DerivedID(first, requestedAt, "outbound.step", ordinal)
}

const (
	planComma = ", "
	planOf    = " of "
)

// String is the step's name in a plan and for people. ParsePlanStep reads it.
func (s PlanStep) String() string {
	text := s.Command
	for i, name := range s.Names {
		if i == 0 {
			text += " "
		} else {
			text += planComma
		}
		text += planName(name)
	}
	if s.Client != "" {
		text += planOf + planName(s.Client)
	}
	return text
}

// planName quotes a name that a plan could not be read back with.
func planName(name string) string {
	if name == "" || strings.Contains(name, ",") || strings.Contains(name, planOf) || strings.HasPrefix(name, `"`) {
		return strconv.Quote(name)
	}
	return name
}

// ParsePlanStep reads a step's name.
func ParsePlanStep(name string) PlanStep {
	command, rest, _ := strings.Cut(name, " ")
	s := PlanStep{Command: command}
	for rest != "" {
		var next string
		if next, rest = cutName(rest); next == "" {
			break
		}
		s.Names = append(s.Names, next)
		if client, ok := strings.CutPrefix(rest, planOf); ok {
			s.Client, _ = cutName(client)
			break
		}
		rest = strings.TrimPrefix(rest, planComma)
	}
	return s
}

// cutName takes the first name off a list of them.
func cutName(list string) (name, rest string) {
	if quoted, err := strconv.QuotedPrefix(list); err == nil && quoted[0] == '"' {
		if name, err = strconv.Unquote(quoted); err == nil {
			return name, list[len(quoted):]
		}
	}
	end := len(list)
	for _, mark := range []string{planComma, planOf} {
		if i := strings.Index(list, mark); i >= 0 {
			end = min(end, i)
		}
	}
	return list[:end], list[end:]
}

// ByHand are the commands that do the step by themselves: the one source of what an
// answer, a trace and an explanation say of a business action that is done in part. It
// is empty for a step that this program does not know.
func (s PlanStep) ByHand(userID string) []string {
	verb, what, _ := strings.Cut(strings.TrimPrefix(s.Command, "user."), ".")
	if what == "" && len(s.Names) == 0 && slices.Contains([]string{"enable", "disable", "logout", "unlock"}, verb) {
		return []string{"keytrail user " + verb + " " + ShellWord(userID)}
	}
	if verb == "client_role" {
		verb = "role"
	}
	if what != "add" && what != "remove" {
		return nil
	}
	var commands []string
	for _, name := range s.Names {
		command := "keytrail user " + verb + " " + what + " " + ShellWord(userID) + " " + ShellWord(name)
		if s.Client != "" {
			command += " --client " + ShellWord(s.Client)
		}
		commands = append(commands, command)
	}
	return commands
}

// ShellWord makes a value fit to be pasted into a shell as one argument.
func ShellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:@%+/-"
	if s != "" && s[0] != '-' && !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(plain, r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
