package trace

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
)

// Describe says in words what an event tells: one line without a full stop, without
// who did it. A user whose name the event does not hold is "the user". Events of an
// unknown type, and members whose key is gone, are named as such.
func Describe(v adapter.View) string { return words{}.describe(v) }

// memberActor is the JSON name of who did it, in metadata and payloads.
const memberActor = "actor"

// words puts events into words, with the user names that are known from elsewhere.
type words struct {
	names map[adapter.UserRef]string
	// brief leaves out the fields that a change set, for texts that list old and new
	// values themselves.
	brief bool
	// creating are the calls that were requested before their user had an id, and
	// echoes the deliveries that report our own calls.
	creating, echoes map[uuid.UUID]bool
}

func (w words) describe(v adapter.View) string {
	text := w.event(v)
	var forgotten []string
	for _, member := range v.Forgotten {
		// Who did it is told elsewhere, see who.
		if member != memberActor && !slices.Contains(forgotten, member) {
			forgotten = append(forgotten, member)
		}
	}
	if len(forgotten) > 0 {
		text += " (forgotten: " + strings.Join(forgotten, ", ") + ")"
	}
	return oneLine(text)
}

func (w words) event(v adapter.View) string {
	switch p := v.Data.(type) {
	case *adapter.AdminEventReceived, *adapter.UserEventReceived, *adapter.UnrecognizedEventReceived,
		*adapter.DeliveryConfirmed, *adapter.DeliveryParked, *adapter.DeliveryReleased:
		return w.delivery(v)
	case *adapter.UserApiCreated:
		groups := ""
		if len(p.Groups) > 0 && !w.brief {
			groups = "groups = " + strings.Join(p.Groups, ", ")
		}
		return w.userOr(p.UserRef, p.Set) + " was created" + via(p.Via) + list(": ", w.fields(p.UserChange, adapter.FieldUsername), groups)
	case *adapter.UserApiUpdated:
		return w.userOr(p.UserRef, p.Set) + " was changed" + via(p.Via) + list(": ", w.fields(p.UserChange))
	case *adapter.UserApiEnabled:
		return w.userOr(p.UserRef, p.Set) + " was enabled" + via(p.Via) + list("; also ", w.fields(p.UserChange, adapter.FieldEnabled))
	case *adapter.UserApiDisabled:
		return w.userOr(p.UserRef, p.Set) + " was disabled" + via(p.Via) + list("; also ", w.fields(p.UserChange, adapter.FieldEnabled))
	case *adapter.UserApiDeleted:
		return w.user(p.UserRef) + " was deleted" + via(p.Via)
	case *adapter.UserApiRolesChanged:
		return w.user(p.UserRef) + list(" ", roles("was given ", p.Added), roles("lost ", p.Removed))
	case *adapter.UserApiGroupsChanged:
		return w.user(p.UserRef) + list(" ", groups("joined ", p.Joined), groups("left ", p.Left))
	case *adapter.UserApiOrganizationsChanged:
		return w.user(p.UserRef) + list(" ", organizations("joined ", p.Joined), organizations("left ", p.Left))
	case *adapter.UserApiCredentialsChanged:
		return w.credentials(p)
	case *adapter.UserApiSessionsEnded:
		return "all sessions of " + w.user(p.UserRef) + " were ended"
	case *adapter.UserApiEmailRequested:
		switch p.Email {
		case adapter.EmailVerify:
			return w.user(p.UserRef) + " was sent an e-mail to verify the address"
		case adapter.EmailExecuteActions:
			return w.user(p.UserRef) + " was sent an e-mail with required actions"
		}
		return w.user(p.UserRef) + " was sent an e-mail: " + p.Email
	case *adapter.UserApiFederatedIdentityChanged:
		if p.Linked {
			return w.user(p.UserRef) + " was linked to the identity provider " + p.Provider
		}
		return w.user(p.UserRef) + " was unlinked from the identity provider " + p.Provider
	case *adapter.UserApiObserved:
		because := ""
		if p.Because != "" {
			because = ", because " + p.Because
		}
		if !p.Present {
			return w.user(p.UserRef) + " was looked for in Keycloak" + because + ": does not exist"
		}
		return w.userOr(p.UserRef, p.Set) + " was read from Keycloak" + because
	case *adapter.UserApiBaselined:
		return w.userOr(p.UserRef, p.Set) + " was adopted as found in Keycloak"
	case *adapter.ReconciliationStarted, *adapter.DriftDetected, *adapter.ReconciliationCompleted, *adapter.ReconciliationAborted:
		return w.reconciliation(v)
	case adapter.Payload:
		if text := w.call(p); text != "" {
			return text
		}
	}
	return "an event of the type " + v.EventType + ", which this program cannot read"
}

// user names a user: by name where it is known, else by id.
func (w words) user(ref adapter.UserRef) string {
	if name := w.names[ref]; name != "" {
		return name
	}
	if w.names != nil && ref.UserID != "" {
		return "user " + ref.UserID
	}
	return "the user"
}

// userOr is user with the name that the event itself sets as the next best.
func (w words) userOr(ref adapter.UserRef, set adapter.Profile) string {
	if w.names[ref] == "" {
		if name, ok := set.Username.Get(); ok && name != "" {
			return strings.ToLower(name)
		}
	}
	return w.user(ref)
}

func via(v string) string {
	switch v {
	case "", "admin", "command":
		return "" // the event's cause says it
	case "registration":
		return " by registering"
	case "account":
		return " in the account console"
	case "import":
		return " by an import"
	case "email_verification":
		return " by verifying the e-mail address"
	case "lockout":
		return " by the brute-force detection"
	case adapter.ViaRealm:
		return " with a change of the realm"
	}
	return " (" + v + ")"
}

// list joins what is not empty behind a lead.
func list(lead string, parts ...string) string {
	parts = slices.DeleteFunc(slices.Clone(parts), func(p string) bool { return p == "" })
	if len(parts) == 0 {
		return ""
	}
	return lead + strings.Join(parts, ", ")
}

// fields lists the fields that a change set, but for those left out.
func (w words) fields(c adapter.UserChange, leaveOut ...string) string {
	if w.brief {
		return ""
	}
	raw, err := json.Marshal(c.Set)
	if err != nil {
		return "fields that cannot be shown"
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		return "fields that cannot be shown"
	}
	var fields []string
	for _, field := range c.Set.Fields() {
		if slices.Contains(leaveOut, field) {
			continue
		}
		text := field + " = " + showJSON(values[field])
		if slices.Contains(c.Inferred, field) {
			text += " (as asked for, not read back)"
		}
		fields = append(fields, text)
	}
	return strings.Join(fields, ", ")
}

func roles(lead string, roles []adapter.Role) string {
	names := make([]string, 0, len(roles))
	for _, r := range roles {
		name := r.Name
		if name == "" {
			name = r.ID
		}
		if client := cmp.Or(r.ClientID, r.Client); client != "" {
			name += " of client " + client
		}
		names = append(names, name)
	}
	return counted(lead, "the role ", "the roles ", names)
}

func groups(lead string, groups []adapter.Group) string {
	names := make([]string, 0, len(groups))
	for _, g := range groups {
		name := g.Path
		if name == "" {
			name = g.ID
		}
		names = append(names, name)
	}
	return counted(lead, "the group ", "the groups ", names)
}

func organizations(lead string, organizations []adapter.Organization) string {
	names := make([]string, 0, len(organizations))
	for _, o := range organizations {
		names = append(names, cmp.Or(o.Alias, o.ID))
	}
	return counted(lead, "the organization ", "the organizations ", names)
}

func counted(lead, one, many string, names []string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return lead + one + names[0]
	}
	return lead + many + strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

func (w words) credentials(p *adapter.UserApiCredentialsChanged) string {
	kind := p.CredentialType
	if kind == "" {
		kind = "credential"
	}
	switch p.Action {
	case "password_reset":
		text := "the password of " + w.user(p.UserRef) + " was reset"
		if p.Temporary != nil && *p.Temporary {
			text += ", to be changed at the next login"
		}
		return text
	case "password_updated":
		return w.user(p.UserRef) + " set a new password"
	case "credential_updated":
		return "a credential of " + w.user(p.UserRef) + " was changed: " + kind
	case "credential_removed":
		return "a credential of " + w.user(p.UserRef) + " was removed: " + kind
	}
	return "a credential of " + w.user(p.UserRef) + " was changed: " + p.Action + ", " + kind
}

func (w words) delivery(v adapter.View) string {
	switch p := v.Data.(type) {
	case *adapter.AdminEventReceived:
		text := "Keycloak reported " + strings.TrimSpace(p.ResourceType+" "+p.OperationType) + w.resource(p)
		if p.Actor.Type != adapter.ActorUnknown && p.Actor.Type != "" && !w.echoes[v.EventID] {
			text += " by " + p.Actor.String()
		}
		if p.Error != "" {
			text += ", which failed there: " + p.Error
		}
		return text + arrival(p.Receipt, v)
	case *adapter.UserEventReceived:
		text := "Keycloak reported " + p.Type
		if p.UserID != "" || p.Details["username"] != "" {
			name := p.Details["username"]
			if name == "" {
				name = w.user(adapter.UserRef{Realm: p.Realm, UserID: p.UserID})
			}
			text += " of " + name
		}
		if p.ClientID != "" {
			text += " at client " + p.ClientID
		}
		if p.Error != "" {
			text += ": " + p.Error
		}
		return text + arrival(p.Receipt, v)
	case *adapter.UnrecognizedEventReceived:
		text := "received a JSON object that no dialect knows and kept it"
		if len(p.Members) > 0 {
			text += "; it has " + strings.Join(p.Members, ", ")
		}
		return text + arrival(p.Receipt, v)
	case *adapter.DeliveryConfirmed:
		if p.Source == "lookup" {
			return "Keycloak was asked whose realm this is: " + strings.Trim(string(p.Added["realm"]), `"`)
		}
		text := "the same event was seen again" + arrival(p.Receipt, v)
		if len(p.Added) > 0 {
			text += "; that adds " + strings.Join(slices.Sorted(maps.Keys(p.Added)), ", ")
		}
		if len(p.Differs) > 0 {
			text += "; the two differ in " + strings.Join(p.Differs, ", ")
		}
		return text
	case *adapter.DeliveryReleased:
		return "interpreted after all" + tries(p.Attempts)
	case *adapter.DeliveryParked:
		if p.Behind != nil {
			return "parked: " + p.Error
		}
		return "parked, since it could not be interpreted" + tries(p.Attempts) + ": " + p.Error
	}
	return ""
}

func tries(n int) string {
	if n < 2 {
		return ""
	}
	return " in " + strconv.Itoa(n) + " attempts"
}

// resource names what an admin event is about: the user where it is one.
func (w words) resource(p *adapter.AdminEventReceived) string {
	if p.ResourcePath == "" {
		return ""
	}
	path := keycloak.ParseResourcePath(p.ResourcePath)
	name := w.names[adapter.UserRef{Realm: p.Realm, UserID: path.UserID}]
	switch {
	case name == "" || path.UserID == "":
		return " of " + p.ResourcePath
	case path.Kind == keycloak.PathUser:
		return " of " + name
	}
	_, below, _ := strings.Cut(p.ResourcePath, path.UserID)
	if below = strings.TrimPrefix(below, "/"); below == "" {
		return " of " + name
	}
	return " of " + name + " (" + below + ")"
}

// arrival says by which way an event came, and how late where that can be noticed.
func arrival(r adapter.Receipt, v adapter.View) string {
	var way string
	switch {
	case r.Source == "":
		return ""
	case r.Source == "poll":
		way = ", pulled"
	case r.Source == "keycloak":
		way = ", pushed"
	default:
		way = ", pushed to " + r.Source
	}
	if lag := v.RecordedAt.Sub(v.OccurredAt); lag >= 10*time.Millisecond {
		way += " " + span(lag) + " later"
	}
	return way
}

func (w words) call(p adapter.Payload) string {
	switch p := p.(type) {
	case *adapter.ApiCallRequested:
		return w.command(p.Command, p.Realm, p.UserID, p.Username) + " requested: " + p.Method + " " + p.URLTemplate + list("; then ", p.Plan...)
	case *adapter.ApiCallPreconditionRead:
		return "looked first" + found(p)
	case *adapter.ApiCallAttempted:
		return "attempt " + strconv.Itoa(p.Attempt.Attempt) + ": " + attempt(p.Attempt)
	case *adapter.ApiCallSucceeded:
		text := "succeeded" + afterAttempts(p.Attempts, p.DurationMS)
		switch p.ResolvedBy {
		case "":
		case "echo":
			text = "succeeded after all: Keycloak's own event proves that it was done"
		default:
			text = "succeeded after all, as found out by " + p.ResolvedBy
		}
		if p.UserID != "" && w.creating[p.CallID] {
			text += "; the new user's id is " + p.UserID
		}
		if p.Note != "" {
			text += "; " + p.Note
		}
		return text
	case *adapter.ApiCallFailed:
		return "failed" + afterAttempts(p.Attempts, p.DurationMS) + ": " + because(p.CallError)
	case *adapter.ApiCallSkipped:
		return refused(because(p.CallError))
	case *adapter.ApiCallOutcomeUnknown:
		return "outcome unknown" + afterAttempts(p.Attempts, p.DurationMS) + ": " + because(p.CallError)
	case *adapter.ApiCallEchoed:
		switch p.MatchedBy {
		case "stamp":
			return "that is the echo of this call, known by the call's stamp"
		case "delete":
			return "that is the echo of this call, known by user, operation and time"
		case "path":
			return "that is the echo of this call, known by address, operation, actor and time"
		}
		return "that is the echo of this call"
	}
	return ""
}

// command names a call: what, whose, where.
func (w words) command(command, realm, userID, username string) string {
	ref := adapter.UserRef{Realm: realm, UserID: userID}
	text := command
	switch {
	case username != "":
		text += " of " + username
	case userID != "" && w.names[ref] != "":
		text += " of " + w.names[ref]
	case userID != "":
		text += " of " + userID
	}
	if realm != "" {
		text += " in " + realm
	}
	return text
}

// lookedFor says by the last parts of its address what a read was about; a list of what
// a user has is not among them.
var lookedFor = map[string]string{
	"": "user", "{realm}/users": "user", "users/{id}": "user", "roles/{name}": "role", "{realm}/clients": "client",
	"organizations/{organization}": "organization", "groups/{group}": "group",
}

// lastParts are the last two segments of an address, but for those of a kind of its own.
func lastParts(template string) string {
	parts := strings.Split(template, "/")
	if len(parts) < 2 || slices.Contains(parts, "attack-detection") {
		return template
	}
	return strings.Join(parts[len(parts)-2:], "/")
}

func found(p *adapter.ApiCallPreconditionRead) string {
	what, known := lookedFor[lastParts(p.URLTemplate)]
	var text string
	switch {
	case !known && p.Found != nil && *p.Found:
		text = " at " + p.URLTemplate
	case !known:
		text = " at " + p.URLTemplate + ", but could not tell"
	case p.Found == nil:
		text = ", but could not tell how the " + what + " is"
	case !*p.Found:
		text = ": the " + what + " does not exist"
	case p.Enabled == nil:
		text = ": the " + what + " exists"
	case *p.Enabled:
		text = ": the user exists and is enabled"
	default:
		text = ": the user exists and is disabled"
	}
	if n := len(p.Attempts); n > 0 {
		text += " (" + p.Method + ", " + attempt(p.Attempts[n-1])
		if n > 1 {
			text += ", " + ordinal(n) + " attempt"
		}
		text += ")"
	}
	return text
}

// attempt says how one request on the wire went.
func attempt(a adapter.Attempt) string {
	took := " after " + milliseconds(a.DurationMS)
	var text string
	switch {
	case a.StatusCode != 0:
		text = strconv.Itoa(a.StatusCode) + took
	case !a.Sent:
		return "nothing was sent" + list(": ", a.Error)
	default:
		text = "no answer" + took
	}
	// The status says all there is to say where the error only repeats it.
	if a.Error != "" && !strings.HasPrefix(a.Error, strconv.Itoa(a.StatusCode)) {
		text += ": " + a.Error
	} else if rest, ok := strings.CutPrefix(a.Error, strconv.Itoa(a.StatusCode)+" "); ok {
		text += ": " + rest
	}
	return text
}

func afterAttempts(n int, ms float64) string {
	text := ""
	if n > 1 {
		text = " at the " + ordinal(n) + " attempt"
	}
	if ms > 0 {
		text += " after " + milliseconds(ms)
	}
	return text
}

// refused says that a rule forbade a call, given why.
func refused(why string) string {
	if strings.Contains(why, "nothing was written") {
		return "refused: " + why
	}
	return "refused, and nothing was written: " + why
}

// because is why a call did not succeed, in our words and in Keycloak's.
func because(e adapter.CallError) string {
	return reason(string(e.Code), e.Message, e.Keycloak)
}

func reason(code, message, said string) string {
	text := message
	if text == "" {
		text = code
	}
	// "HTTP 503 Service Unavailable" is what Keycloak says where it has no words.
	if said != "" && !strings.HasPrefix(said, "HTTP ") && !strings.Contains(text, said) {
		text += `; Keycloak says "` + said + `"`
	}
	return text
}

func (w words) reconciliation(v adapter.View) string {
	switch p := v.Data.(type) {
	case *adapter.ReconciliationStarted:
		text := "reconciliation of " + p.Realm + " began"
		if p.Trigger != "" {
			text += " (" + p.Trigger + ")"
		}
		if p.Baseline {
			text += "; it adopts the users that nothing is known of"
		}
		return text
	case *adapter.DriftDetected:
		return w.drift(p)
	case *adapter.ReconciliationCompleted:
		text := "compared " + number(p.Compared, "user") + ": " + strconv.Itoa(p.InSync) + " in sync"
		for _, s := range slices.Sorted(maps.Keys(p.Findings)) {
			if p.Findings[s] > 0 {
				text += ", " + strconv.Itoa(p.Findings[s]) + " " + situation(s)
			}
		}
		if p.Unsettled > 0 {
			text += ", " + strconv.Itoa(p.Unsettled) + " too young to judge"
		}
		if p.Baselined > 0 {
			text += ", " + strconv.Itoa(p.Baselined) + " adopted"
		}
		return text
	case *adapter.ReconciliationAborted:
		if p.Status == "invalid" {
			return "the run is invalid and judges nothing: " + reason(string(p.Code), p.Message, "")
		}
		return "the run was aborted and judges nothing: " + reason(string(p.Code), p.Message, "")
	}
	return ""
}

// situation says how users counted under it are.
func situation(s adapter.Situation) string {
	switch s {
	case adapter.SituationMissingLive:
		return "missing in Keycloak"
	case adapter.SituationUnexpectedLive:
		return "never heard of"
	case adapter.SituationDuplicate:
		return "listed more than once"
	case adapter.SituationStaleProjection:
		return "not folded yet"
	case adapter.SituationInFlight:
		return "with a call under way"
	}
	return strings.ReplaceAll(string(s), "_", " ") // changed, unreadable
}

func (w words) drift(p *adapter.DriftDetected) string {
	name := p.Username
	if name == "" {
		name = w.user(adapter.UserRef{Realm: p.Realm, UserID: p.UserID})
	}
	lead := "drift found: "
	switch p.Phase {
	case adapter.DriftAltered:
		lead = "drift has changed: "
	case adapter.DriftEnded:
		return "drift is over: " + name + " is as believed again"
	}
	var text string
	switch p.Situation {
	case adapter.SituationChanged:
		text = name + " was changed in Keycloak and no event told of it"
	case adapter.SituationMissingLive:
		text = name + " is gone from Keycloak and no event told of it"
	case adapter.SituationUnexpectedLive:
		text = name + " exists in Keycloak and no event told of it"
	case adapter.SituationDuplicate:
		text = name + " was listed more than once"
	case adapter.SituationUnreadable:
		text = name + " could not be read from Keycloak"
	case adapter.SituationStaleProjection:
		text = "the users projection is behind on " + name
	case adapter.SituationInFlight:
		text = "a call on " + name + " is still under way"
	default:
		text = name + ": " + string(p.Situation)
	}
	var fields []string
	for _, f := range p.Fields {
		field := f.Field + " is " + showJSON(f.Actual) + ", believed " + showJSON(f.Believed)
		if f.LastChangedBy != "" {
			field += " as set by " + f.LastChangedBy
			if f.LastChangedAt != nil {
				field += " on " + f.LastChangedAt.UTC().Format("2006-01-02 15:04:05")
			}
		}
		fields = append(fields, field)
	}
	if len(fields) > 0 {
		text += ": " + strings.Join(fields, "; ")
	}
	return lead + text
}

// showJSON shows a JSON value as people write it.
func showJSON(raw json.RawMessage) string {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if len(raw) == 0 || d.Decode(&v) != nil {
		return "none"
	}
	return show(v)
}

// show shows a field's value as people write it.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case string:
		if v == "" || v != oneLine(v) {
			return strconv.Quote(v)
		}
		return v
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	case []any:
		return shown(v)
	case []string:
		return shown(v)
	case map[string]any:
		return members(v)
	case map[string][]string:
		return members(v)
	}
	return fmt.Sprint(v)
}

func shown[T any](values []T) string {
	if len(values) == 0 {
		return "none"
	}
	parts := make([]string, 0, len(values))
	for _, v := range values {
		parts = append(parts, show(v))
	}
	return strings.Join(parts, ", ")
}

func members[T any](m map[string]T) string {
	if len(m) == 0 {
		return "none"
	}
	parts := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+": "+show(m[k]))
	}
	return "{" + strings.Join(parts, "; ") + "}"
}

// maxLine bounds what one event may say, in runes: error texts and attributes come
// from outside.
const maxLine = 600

// oneLine makes text from outside fit to print: no line breaks, no control
// characters (a terminal would obey them), bounded.
func oneLine(s string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		// C0, DEL, C1, and the marks that turn the direction of text around.
		if r < 0x20 || (r >= 0x7f && r < 0xa0) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return -1
		}
		return r
	}, s)
	if runes := []rune(clean); len(runes) > maxLine {
		clean = string(runes[:maxLine]) + "…"
	}
	return clean
}

func number(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

var ordinals = []string{"zeroth", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"}

func ordinal(n int) string {
	if n >= 0 && n < len(ordinals) {
		return ordinals[n]
	}
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return strconv.Itoa(n) + suffix
}

var counts = []string{"never", "once", "twice", "three times", "four times", "five times"}

func times(n int) string {
	if n >= 0 && n < len(counts) {
		return counts[n]
	}
	return strconv.Itoa(n) + " times"
}

func milliseconds(ms float64) string { return span(time.Duration(ms * float64(time.Millisecond))) }

// span shows a length of time with the precision that a person wants.
func span(d time.Duration) string {
	d = d.Abs()
	switch {
	case d < time.Millisecond:
		return "<1 ms"
	case d < 100*time.Millisecond:
		return strconv.FormatInt(int64(math.Round(float64(d)/float64(time.Millisecond))), 10) + " ms"
	case d < 9950*time.Millisecond:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	d = d.Round(time.Second)
	switch {
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < time.Hour:
		return units(d, time.Minute, "min", time.Second, "s")
	case d < 24*time.Hour:
		return units(d, time.Hour, "h", time.Minute, "min")
	}
	return units(d, 24*time.Hour, "d", time.Hour, "h")
}

func units(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	text := strconv.Itoa(int(d/big)) + " " + bigName
	if rest := int(d % big / small); rest > 0 {
		text += " " + strconv.Itoa(rest) + " " + smallName
	}
	return text
}
