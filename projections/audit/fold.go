package audit

import (
	"cmp"
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
)

// Name is the projection's name.
const Name = "audit"

// Base names of the tables.
const (
	entryTable = "api_audit_entries"
	userTable  = "api_audit_users"
	actorTable = "api_audit_actors"
)

//go:embed schema.sql
var schema string

// Projection folds events into the audit trail.
type Projection struct {
	log   eventstore.Reader
	codec *adapter.Codec
}

var _ projections.Projection = (*Projection)(nil)

// New returns the projection. It reads from log the streams of users whose events came
// late.
func New(log eventstore.Reader, codec *adapter.Codec) *Projection {
	return &Projection{log: log, codec: codec}
}

// Name implements projections.Projection.
func (*Projection) Name() string { return Name }

// Version implements projections.Projection.
func (*Projection) Version() int { return 3 }

// Types implements projections.Projection.
func (*Projection) Types() []string { return slices.Clone(types) }

var types = []string{
	adapter.TypeUserApiCreated, adapter.TypeUserApiUpdated, adapter.TypeUserApiEnabled,
	adapter.TypeUserApiDisabled, adapter.TypeUserApiDeleted, adapter.TypeUserApiRolesChanged,
	adapter.TypeUserApiGroupsChanged, adapter.TypeUserApiCredentialsChanged,
	adapter.TypeUserApiOrganizationsChanged, adapter.TypeUserApiSessionsEnded, adapter.TypeUserApiEmailRequested,
	adapter.TypeUserApiFederatedIdentityChanged, adapter.TypeUserApiObserved, adapter.TypeUserApiBaselined,
	adapter.TypeApiCallRequested, adapter.TypeApiCallPreconditionRead, adapter.TypeApiCallSucceeded,
	adapter.TypeApiCallFailed, adapter.TypeApiCallSkipped, adapter.TypeApiCallOutcomeUnknown,
	adapter.TypeApiCallEchoed,
	adapter.TypeAdminEventReceived, adapter.TypeUserEventReceived, adapter.TypeDeliveryConfirmed,
	adapter.TypeDriftDetected,
}

// Tables implements projections.Projection.
func (*Projection) Tables() []string { return []string{entryTable, userTable, actorTable} }

// Schema implements projections.Projection.
func (*Projection) Schema(d projections.Dialect, t projections.Tables) []string {
	return projections.Statements(d, schema,
		"{entries}", t.Name(entryTable), "{entry_index}", t.Index(entryTable), "{users}", t.Name(userTable), "{actors}", t.Name(actorTable))
}

// Fold implements projections.Projection.
func (p *Projection) Fold(ctx context.Context, b projections.Batch) (projections.Write, error) {
	f := fold{entries: make(map[string]adapter.AuditEntry), gone: make(map[string]bool)}
	if err := f.loadCalls(ctx, b); err != nil {
		return nil, err
	}
	users, err := p.foldUsers(ctx, b, &f)
	if err != nil {
		return nil, err
	}
	actors, err := newActors(ctx, b)
	if err != nil {
		return nil, err
	}
	for _, e := range b.Events {
		f.apply(e)
	}
	rows := make([][]any, 0, len(f.entries))
	for _, id := range slices.Sorted(maps.Keys(f.entries)) {
		row, err := values(id, f.entries[id])
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	var gone [][]any
	for _, id := range slices.Sorted(maps.Keys(f.gone)) {
		gone = append(gone, []any{id})
	}
	return func(ctx context.Context, tx *sql.Tx) error {
		entries := b.Tables.Name(entryTable)
		if err := projections.Delete(ctx, tx, b.DB.Dialect, entries, entryKey, gone); err != nil {
			return err
		}
		if err := projections.Upsert(ctx, tx, b.DB.Dialect, entries, entryKey, entryColumns, rows); err != nil {
			return err
		}
		if err := projections.Upsert(ctx, tx, b.DB.Dialect, b.Tables.Name(userTable), userKey, userColumns, users); err != nil {
			return err
		}
		return projections.Upsert(ctx, tx, b.DB.Dialect, b.Tables.Name(actorTable), actorColumns, actorColumns, actors)
	}, nil
}

var (
	entryKey     = []string{"row_id"}
	entryColumns = []string{
		"row_id", "occurred_at", "position", "realm", "event_type", "action",
		"actor_id", "actor_username", "user_id", "username", "entry",
	}
	userKey     = []string{"realm", "user_id"}
	userColumns = []string{"realm", "user_id", "state"}
)

// The three kinds of rows have keys that cannot be confused: a call's row is told of by
// several events, and a delivery's gives way to the event that was derived from it.
func eventRow(id uuid.UUID) string    { return "event/" + id.String() }
func callRow(id uuid.UUID) string     { return "call/" + id.String() }
func deliveryRow(id uuid.UUID) string { return "delivery/" + id.String() }

func values(id string, a adapter.AuditEntry) ([]any, error) {
	entry, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("audit entry of event %s: %w", a.EventID, err)
	}
	var actor adapter.Actor
	if a.Actor != nil {
		actor = *a.Actor
	}
	clean := projections.KeyText
	return []any{
		id, projections.FormatRequired(a.OccurredAt), int64(a.Position), clean(a.Realm), clean(a.EventType), clean(a.Action),
		clean(actor.ID), clean(actor.Username), clean(a.UserID), clean(strings.ToLower(a.Username)), string(entry),
	}, nil
}

// fold is what a batch changes.
type fold struct {
	// entries are the rows to write: those of the batch, and calls as they were.
	entries map[string]adapter.AuditEntry
	// gone are the rows to delete.
	gone map[string]bool
}

// loadCalls reads the rows of the calls whose next events are in the batch.
func (f *fold) loadCalls(ctx context.Context, b projections.Batch) error {
	var keys [][]any
	asked := make(map[string]bool)
	for _, e := range b.Events {
		switch e.Payload.(type) {
		case *adapter.ApiCallRequested, *adapter.ApiCallEchoed:
			continue
		}
		id := callRow(e.Stream.AggregateID())
		if e.Stream.Category() == adapter.CategoryCall && !asked[id] {
			asked[id] = true
			keys = append(keys, []any{id})
		}
	}
	query := `SELECT row_id, entry FROM ` + b.Tables.Name(entryTable) + ` WHERE (row_id)`
	err := projections.SelectByKey(ctx, b.DB, query, keys, func(rows *sql.Rows) error {
		var id string
		var entry []byte
		if err := rows.Scan(&id, &entry); err != nil {
			return err
		}
		a, err := decode(entry)
		f.entries[id] = a
		return err
	})
	if err != nil {
		return fmt.Errorf("read the calls so far: %w", err)
	}
	return nil
}

// apply folds one event in that follows on all that are folded. Rows of users' streams
// are there already.
func (f *fold) apply(e adapter.Decoded) {
	switch p := e.Payload.(type) {
	case *adapter.ApiCallRequested:
		f.requested(e, p)
	case *adapter.ApiCallPreconditionRead:
		f.updateCall(p.CallID, func(a *adapter.AuditEntry) {
			a.UserID = cmp.Or(a.UserID, p.UserID)
			a.Username = cmp.Or(a.Username, strings.ToLower(p.Username))
		})
	case *adapter.ApiCallSucceeded:
		f.decided(e, p.CallID, adapter.AuditSucceeded, adapter.CallError{})
		f.updateCall(p.CallID, func(a *adapter.AuditEntry) { a.UserID = cmp.Or(a.UserID, p.UserID) })
	case *adapter.ApiCallFailed:
		f.decided(e, p.CallID, adapter.AuditFailed, p.CallError)
	case *adapter.ApiCallSkipped:
		f.decided(e, p.CallID, adapter.AuditSkipped, p.CallError)
	case *adapter.ApiCallOutcomeUnknown:
		f.decided(e, p.CallID, adapter.AuditUnknown, p.CallError)
	case *adapter.ApiCallEchoed:
		f.remove(deliveryRow(p.DeliveryEventID))
	case *adapter.AdminEventReceived:
		f.entries[deliveryRow(e.ID)] = ofAdminEvent(e, p)
	case *adapter.UserEventReceived:
		if refusedChange(p) {
			f.entries[deliveryRow(e.ID)] = ofUserEvent(e, p)
		}
	case *adapter.DriftDetected:
		f.entries[eventRow(e.ID)] = ofDrift(e, p)
	case *adapter.UserApiObserved, *adapter.UserApiBaselined:
		// A look at a user does not tell of the action that it followed on.
	case adapter.UserPayload:
		if e.Meta.CallID != nil {
			f.remove(callRow(*e.Meta.CallID))
		}
		// A change of the realm is told by its delivery, and again for each user whom it
		// concerns.
		if e.Meta.CausationID != nil && viaOf(p) != adapter.ViaRealm {
			f.remove(deliveryRow(*e.Meta.CausationID))
		}
	}
}

func viaOf(p adapter.UserPayload) string {
	switch p := p.(type) {
	case *adapter.UserApiUpdated:
		return p.Via
	case *adapter.UserApiRolesChanged:
		return p.Via
	case *adapter.UserApiGroupsChanged:
		return p.Via
	case *adapter.UserApiOrganizationsChanged:
		return p.Via
	default:
		return ""
	}
}

// remove takes out a row that another one tells better.
func (f *fold) remove(id string) {
	delete(f.entries, id)
	f.gone[id] = true
}

// requested begins the row of a call. One that only reads is no action.
func (f *fold) requested(e adapter.Decoded, p *adapter.ApiCallRequested) {
	if p.Method == http.MethodGet {
		return
	}
	a := adapter.AuditOf(e)
	a.CallID = &p.CallID
	a.Realm, a.UserID, a.Username = p.Realm, p.UserID, strings.ToLower(p.Username)
	a.Action, a.Outcome = p.Command, adapter.AuditRequested
	f.entries[callRow(p.CallID)] = a
}

// decided says how a call stands. Who asked for it and why is in its request: an
// outcome that an echo proves has Keycloak's account of it.
func (f *fold) decided(e adapter.Decoded, callID uuid.UUID, outcome adapter.AuditOutcome, why adapter.CallError) {
	f.updateCall(callID, func(a *adapter.AuditEntry) {
		a.Position, a.EventID, a.EventType = e.Position, e.ID, e.Type
		a.OccurredAt, a.RecordedAt = e.OccurredAt.UTC(), e.RecordedAt.UTC()
		a.Outcome, a.Code, a.Error, a.Keycloak = outcome, why.Code, why.Message, why.Keycloak
	})
}

// updateCall changes the row of a call, where it has one: one that reads has none, and
// neither has one that a user event tells of.
func (f *fold) updateCall(callID uuid.UUID, change func(*adapter.AuditEntry)) {
	id := callRow(callID)
	if a, ok := f.entries[id]; ok {
		change(&a)
		f.entries[id] = a
	}
}

func ofAdminEvent(e adapter.Decoded, p *adapter.AdminEventReceived) adapter.AuditEntry {
	a := adapter.AuditOf(e)
	if a.Actor == nil {
		a.Actor = &p.Actor
	}
	a.Realm = cmp.Or(p.Realm, p.RealmID)
	a.Action = strings.TrimSpace(p.ResourceType + " " + p.OperationType)
	a.ResourcePath, a.UserID = p.ResourcePath, p.UserID
	if p.UserID != "" {
		a.Username = strings.ToLower(p.Details["username"])
	}
	a.Via, a.Outcome = "admin", adapter.AuditSucceeded
	if p.Error != "" {
		a.Outcome, a.Error = adapter.AuditFailed, p.Error
	}
	return a
}

// errorSuffix ends the type of a user event that says that something was refused
// (Keycloak: EventType.java).
const errorSuffix = "_ERROR"

// accountChanges are the user events that tell of a change to an account
// (EventType.java), without the suffix of their refusal.
var accountChanges = map[string]bool{
	"REGISTER": true, "DELETE_ACCOUNT": true, "UPDATE_PROFILE": true, "UPDATE_EMAIL": true, "VERIFY_EMAIL": true,
	"VERIFY_PROFILE": true, "UPDATE_PASSWORD": true, "RESET_PASSWORD": true, "UPDATE_CREDENTIAL": true,
	"REMOVE_CREDENTIAL": true, "UPDATE_TOTP": true, "REMOVE_TOTP": true, "FEDERATED_IDENTITY_LINK": true,
	"REMOVE_FEDERATED_IDENTITY": true, "IDENTITY_PROVIDER_LINK_ACCOUNT": true, "IMPERSONATE": true,
	"GRANT_CONSENT": true, "UPDATE_CONSENT": true, "REVOKE_GRANT": true, "INVITE_ORG": true,
}

func refusedChange(p *adapter.UserEventReceived) bool {
	change, refused := strings.CutSuffix(p.Type, errorSuffix)
	return refused && accountChanges[change]
}

func ofUserEvent(e adapter.Decoded, p *adapter.UserEventReceived) adapter.AuditEntry {
	a := adapter.AuditOf(e)
	if a.Actor == nil {
		a.Actor = &p.Actor
	}
	a.Realm, a.UserID = cmp.Or(p.Realm, p.RealmID), p.UserID
	a.Username = strings.ToLower(p.Details["username"])
	a.Action, a.Via = p.Type, "account"
	a.Outcome, a.Error = adapter.AuditFailed, p.Error
	return a
}

func ofDrift(e adapter.Decoded, p *adapter.DriftDetected) adapter.AuditEntry {
	a := adapter.AuditOf(e)
	a.Realm, a.UserID, a.Username = p.Realm, p.UserID, strings.ToLower(p.Username)
	a.Action, a.Outcome = "drift."+string(p.Phase), adapter.AuditObserved
	for _, f := range p.Fields {
		a.Changes = append(a.Changes, adapter.FieldChange{Field: f.Field, Old: f.Believed, New: f.Actual})
	}
	return a
}

func decode(entry []byte) (adapter.AuditEntry, error) {
	var a adapter.AuditEntry
	if err := json.Unmarshal(entry, &a); err != nil {
		return a, fmt.Errorf("an audit entry: %w", err)
	}
	return a, nil
}
