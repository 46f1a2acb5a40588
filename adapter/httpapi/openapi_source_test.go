package httpapi

import (
	"net/http"
	"reflect"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// This file is the source of openapi.json: every route with what it takes and answers.
// Schemas come from the types of the answers and their comments, statuses from the
// codes of the problems. UPDATE_GOLDEN=1 go test -run TestOpenAPI writes the file.

// operation is one method of one path.
type operation struct {
	method, path string
	id           string
	tag          string
	summary      string
	description  string
	query        []parameter
	headers      []parameter
	body         *requestBody
	answers      []described
	problems     []adapter.Code
	// public operations need no authentication.
	security security
}

type security int

const (
	byToken security = iota
	bySignature
	byNothing
)

type parameter struct {
	name, description string
	schema            object
}

// requestBody is a body; required names the members that must be there.
type requestBody struct {
	description string
	properties  map[string]object
	required    []string
	// whole replaces the object made of properties.
	whole object
}

// described is an answer that is no problem.
type described struct {
	status      int
	description string
	// body is the answer's type, nil where text is set.
	body     reflect.Type
	text     []string
	location string
}

func answers(status int, description string, body reflect.Type) described {
	return described{status: status, description: description, body: body}
}

func (d described) at(location string) described {
	d.location = location
	return d
}

// Codes that every request of the API can be answered with.
var (
	apiProblems  = []adapter.Code{adapter.CodeInvalidRequest, codeUnauthorized, adapter.CodeStoreUnavailable, adapter.CodeInternal}
	bodyProblems = []adapter.Code{codeCrossOrigin, codeMediaType, codeTooLarge, codeTimeout}
	// commandProblems are those of every command to Keycloak.
	commandProblems = []adapter.Code{
		adapter.CodeUserNotFound, adapter.CodeRealmNotFound, adapter.CodeKeycloakNotFound, adapter.CodeKeycloakConflict,
		adapter.CodeKeycloakInvalid, adapter.CodeIdempotencyKeyReused, adapter.CodeKeycloakNotConfigured,
		adapter.CodeKeycloakUnauthorized, adapter.CodeKeycloakForbidden, adapter.CodeKeycloakRejected,
		adapter.CodeKeycloakUnreachable, adapter.CodeKeycloakUnavailable, adapter.CodeInterrupted,
	}
)

var (
	text    = object{"type": "string"}
	texts   = object{"type": "array", "items": text}
	truth   = object{"type": "boolean"}
	id      = object{"type": "string", "format": "uuid"}
	moment  = object{"type": "string", "format": "date-time"}
	listing = []parameter{
		{"limit", "The most items of a page.", object{"type": "integer", "minimum": 1, "maximum": maxLimit, "default": defaultLimit}},
		{"cursor", "next_cursor of the page before.", text},
	}
	realmFilter = parameter{"realm", "Only this realm.", text}
)

func nullable(schema object) object {
	out := object{}
	for k, v := range schema {
		out[k] = v
	}
	out["type"] = []any{schema["type"], "null"}
	return out
}

func with(more object, schema object) object {
	out := object{}
	for k, v := range schema {
		out[k] = v
	}
	for k, v := range more {
		out[k] = v
	}
	return out
}

func describedAs(description string, schema object) object {
	return with(object{"description": description}, schema)
}

// profile are the fields that a command sets.
func profile(clear func(object) object) map[string]object {
	return map[string]object{
		"username":         with(object{"minLength": 1}, text),
		"email":            clear(text),
		"first_name":       clear(text),
		"last_name":        clear(text),
		"enabled":          truth,
		"email_verified":   truth,
		"attributes":       {"type": "object", "additionalProperties": texts},
		"required_actions": clear(texts),
		"reason":           reasonField,
	}
}

var reasonField = object{"type": "string", "maxLength": maxReason, "description": "Why: it is kept with every event of the command."}

// reasonOnly is the body of a command without fields of its own. It may be left out.
func reasonOnly() *requestBody {
	return &requestBody{description: "May be left out.", properties: map[string]object{"reason": reasonField}}
}

func bodyOf(description string, properties map[string]object, required ...string) *requestBody {
	properties["reason"] = reasonField
	return &requestBody{description: description, properties: properties, required: required}
}

// command is an operation on one user, by way of Keycloak.
func commandOn(method, path, id, summary string, body *requestBody, problems ...adapter.Code) operation {
	return operation{
		method: method, path: apiRoot + userPath + path, id: id, tag: "commands", summary: summary, body: body,
		headers: []parameter{idempotencyKey},
		answers: []described{
			answers(http.StatusOK, "Done.", typeOf[outcome]()),
			commandOpen,
		},
		problems: concat(commandProblems, problems),
	}
}

func concat(lists ...[]adapter.Code) []adapter.Code {
	var all []adapter.Code
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

var (
	idempotencyKey = parameter{
		idempotencyHeader, "Names the request: sent again with the same key, it is answered with what became of the first.",
		object{"type": "string", "minLength": 1, "maxLength": maxKey},
	}
	// ownIdempotencyKey is the key of what is asked of keytrail itself.
	ownIdempotencyKey = func(description string) []parameter {
		return []parameter{{idempotencyHeader, description, idempotencyKey.schema}}
	}
	commandOpen = answers(http.StatusAccepted, "The outcome is open: still under way, or unknown since the answer was lost. The call tells it.", typeOf[outcome]()).
			at("The call.")
)

// operations are all of them, in the order of the document.
func operations() []operation {
	user := userPath
	list := func(path, id, tag, summary string, item reflect.Type, query []parameter, problems ...adapter.Code) operation {
		return operation{
			method: http.MethodGet, path: apiRoot + path, id: id, tag: tag, summary: summary, query: query,
			answers: []described{answers(http.StatusOK, "A page.", item)}, problems: problems,
		}
	}
	show := func(path, id, tag, summary string, body reflect.Type, query []parameter, problems ...adapter.Code) operation {
		return operation{
			method: http.MethodGet, path: apiRoot + path, id: id, tag: tag, summary: summary, query: query,
			answers: []described{answers(http.StatusOK, "Found.", body)}, problems: problems,
		}
	}
	creating := profile(nullable)
	creating["password"] = with(object{"minLength": 1, "writeOnly": true}, nullable(text))
	creating["groups"] = describedAs("Full group paths.", nullable(object{"type": "array", "items": with(object{"pattern": "^/"}, text)}))
	creating["roles"] = describedAs("Names of realm roles.", nullable(texts))
	creating["client_roles"] = describedAs("Names of client roles by client id.", object{"type": []any{"object", "null"}, "additionalProperties": texts})
	creating["organization"] = describedAs("The id of an organization.", nullable(text))
	updating := profile(nullable)
	updating["attributes"] = describedAs("Merged with those that the user has; an empty list removes one.", updating["attributes"])

	return []operation{
		list("/realms/{realm}/users", "listUsers", "users", "List the users that keytrail has heard of", typeOf[page[adapter.UserView]](), append([]parameter{
			{"username", "Exact, in any case.", text},
			{"email", "Exact, in any case.", text},
			{"enabled", "Only those that are, or are not.", truth},
			{"deleted", "Only those that are, or are not.", truth},
			{"search", "Part of a user name, address, first or last name, in any case.", text},
		}, listing...)),
		{
			method: http.MethodPost, path: apiRoot + "/realms/{realm}/users", id: "createUser", tag: "commands", summary: "Create a user in Keycloak",
			description: "With roles or an organization it is one business action of several calls; where a later one fails the problem says how far it came. Null is as if the member were left out.",
			headers:     []parameter{idempotencyKey},
			body:        bodyOf("The new user.", creating, "username"),
			answers: []described{
				answers(http.StatusCreated, "Created.", typeOf[outcome]()).at("The user."),
				commandOpen,
			},
			problems: concat(commandProblems, []adapter.Code{
				adapter.CodePasswordRejected, adapter.CodeRoleNotFound, adapter.CodeClientNotFound, adapter.CodeGroupNotFound,
				adapter.CodeOrganizationNotFound, adapter.CodePartiallyDone,
			}),
		},
		show(user, "showUser", "users", "Show one user, now or at a moment", typeOf[adapter.UserView](), []parameter{
			{"at", "The state at that moment: what occurred until then.", moment},
			{"known_at", "What was known then: what was recorded until then. With at: what was known then of that moment.", moment},
		}, adapter.CodeUserNotFound, adapter.CodeNotYetKnown),
		commandOn(http.MethodPatch, "", "updateUser", "Change profile fields in Keycloak", bodyOf("The fields to change; null clears one.", updating), adapter.CodeAlreadyEnabled, adapter.CodeAlreadyDisabled),
		commandOn(http.MethodDelete, "", "deleteUser", "Delete a user in Keycloak", reasonOnly()),
		list(user+"/history", "userHistory", "users", "List every event of a user, newest first, with old and new values", typeOf[page[adapter.HistoryEntry]](), listing, adapter.CodeUserNotFound),
		commandOn(http.MethodPost, "/enable", "enableUser", "Enable a user", reasonOnly(), adapter.CodeAlreadyEnabled),
		commandOn(http.MethodPost, "/disable", "disableUser", "Disable a user", reasonOnly(), adapter.CodeAlreadyDisabled),
		commandOn(http.MethodPut, "/roles/{name}", "addRole", "Give a realm role", reasonOnly(), adapter.CodeAlreadyHasRole, adapter.CodeRoleNotFound),
		commandOn(http.MethodDelete, "/roles/{name}", "removeRole", "Take a realm role", reasonOnly(), adapter.CodeRoleNotHeld, adapter.CodeRoleNotFound),
		commandOn(http.MethodPut, "/client-roles/{client}/{name}", "addClientRole", "Give a client role", reasonOnly(), adapter.CodeAlreadyHasRole, adapter.CodeRoleNotFound, adapter.CodeClientNotFound),
		commandOn(http.MethodDelete, "/client-roles/{client}/{name}", "removeClientRole", "Take a client role", reasonOnly(), adapter.CodeRoleNotHeld, adapter.CodeRoleNotFound, adapter.CodeClientNotFound),
		commandOn(http.MethodPut, "/groups/{group}", "joinGroup", "Add to a group", reasonOnly(), adapter.CodeAlreadyMember, adapter.CodeGroupNotFound),
		commandOn(http.MethodDelete, "/groups/{group}", "leaveGroup", "Remove from a group", reasonOnly(), adapter.CodeNotMember, adapter.CodeGroupNotFound),
		commandOn(http.MethodPut, "/organizations/{organization}", "joinOrganization", "Add to an organization", reasonOnly(), adapter.CodeAlreadyMember, adapter.CodeOrganizationNotFound),
		commandOn(http.MethodDelete, "/organizations/{organization}", "leaveOrganization", "Remove from an organization", reasonOnly(), adapter.CodeNotMember, adapter.CodeManagedMember, adapter.CodeOrganizationNotFound),
		commandOn(http.MethodPut, "/required-actions", "setRequiredActions", "Set the required actions",
			bodyOf("The whole list; an empty one clears.", map[string]object{"required_actions": texts}, "required_actions")),
		commandOn(http.MethodPost, "/reset-password", "resetPassword", "Reset the password",
			bodyOf("The new password, which is never recorded.", map[string]object{
				"password": with(object{"minLength": 1, "writeOnly": true}, text), "temporary": describedAs("It has to be changed at the next login.", nullable(truth)),
			}, "password"), adapter.CodePasswordRejected, adapter.CodePartiallyDone),
		commandOn(http.MethodPost, "/send-verify-email", "sendVerifyEmail", "Send a verification e-mail", reasonOnly(), adapter.CodeEmailMissing, adapter.CodeUserDisabled, adapter.CodeKeycloakMailFault),
		commandOn(http.MethodPost, "/logout", "logoutUser", "End the sessions", reasonOnly()),
		commandOn(http.MethodPost, "/unlock", "unlockUser", "End a lock-out by the brute-force detection", reasonOnly(), adapter.CodeNotLocked, adapter.CodePartiallyDone),

		list("/calls", "listCalls", "inspection", "List outbound calls, newest first", typeOf[page[adapter.Call]](), append([]parameter{
			{"status", "One or several, with commas or repeated.", object{"type": "array", "items": enum(typeOf[adapter.CallStatus]())}},
			realmFilter,
			{"user_id", "Only calls on this user.", text},
			{"correlation_id", "Only calls of this story.", id},
		}, listing...)),
		show("/calls/{id}", "showCall", "inspection", "Show one outbound call with its attempts", typeOf[adapter.Call](), nil, adapter.CodeNotFound),
		list("/failures", "listFailures", "inspection", "List what needs attention, newest first", typeOf[page[trace.Failure]](), append([]parameter{realmFilter}, listing...)),
		show("/traces/{id}", "showTrace", "inspection", "Show the story around any id",
			typeOf[trace.Trace](), []parameter{{"realm", "Where the id is a user's.", text}}, adapter.CodeNotFound),
		show("/traces/{id}/explanation", "explainTrace", "inspection", "Explain the story around any id in sentences",
			typeOf[trace.Explanation](), []parameter{{"realm", "Where the id is a user's.", text}}, adapter.CodeNotFound),
		list("/audit", "listAudit", "inspection", "List who did what, when, why and through what, newest first", typeOf[page[adapter.AuditEntry]](), append([]parameter{
			realmFilter,
			{"actor", "The id or user name of who did it.", text},
			{"user", "The id or user name of the user whom it is about.", text},
			{"type", "An action such as user.disable, or a type of events.", text},
			{"from", "What occurred from then on.", moment},
			{"to", "What occurred before.", moment},
		}, listing...)),
		show("/analytics", "showAnalytics", "inspection", "Count over time", typeOf[adapter.Analytics](), []parameter{
			realmFilter,
			{"from", "From then on, widened to a whole bucket; 24 hours before the end where it is left out, 30 days by day.", moment},
			{"to", "Until then, widened to a whole bucket; now where it is left out.", moment},
			{"bucket", "How long the stretches of time are: by default an hour up to a week, and a day beyond it.", enum(typeOf[adapter.AnalyticsBucket]())},
		}),
		list("/events", "listEvents", "inspection", "List the log, oldest first", typeOf[page[adapter.View]](), append([]parameter{
			{"type", "One or several, with commas or repeated.", texts},
			{"stream", "A stream's name, such as user/acme/6a91, or its UUID.", text},
			{"correlation_id", "Only events of this story.", id},
			{"from_position", "From this position on.", object{"type": "integer", "format": "int64", "minimum": 1}},
		}, listing...), adapter.CodeNotFound),

		{
			method: http.MethodPost, path: apiRoot + "/realms/{realm}/reconciliations", id: "startReconciliation", tag: "reconciliation", summary: "Start a run",
			headers: ownIdempotencyKey("Names the request: sent again with the same key, it is answered with the run that the first began in this realm."),
			body:    reasonOnly(),
			answers: []described{answers(http.StatusAccepted, "Begun.", typeOf[adapter.Reconciliation]()).at("The run.")},
			problems: []adapter.Code{
				adapter.CodeNotFound, adapter.CodeRealmNotFound, adapter.CodeRunInProgress, adapter.CodeKeycloakNotConfigured,
				adapter.CodeIdempotencyKeyReused, adapter.CodeKeycloakUnreachable, adapter.CodeInterrupted,
			},
		},
		list("/reconciliations", "listReconciliations", "reconciliation", "List runs without findings, newest first", typeOf[page[adapter.Reconciliation]](), append([]parameter{realmFilter}, listing...)),
		show("/reconciliations/{id}", "showReconciliation", "reconciliation", "Show one run with its first findings", typeOf[adapter.Reconciliation](), nil, adapter.CodeNotFound),
		list("/reconciliations/{id}/findings", "listFindings", "reconciliation", "List a run's findings", typeOf[page[adapter.Finding]](), listing, adapter.CodeNotFound),
		{
			method: http.MethodPost, path: apiRoot + "/reconciliations/{id}/cancel", id: "cancelReconciliation", tag: "reconciliation", summary: "End a run",
			description: "A run of another process stops before its next request to Keycloak. What a run has adopted stays. 400 where the run is over already.",
			headers:     ownIdempotencyKey("May be sent. A run is ended once: with any key, one that is aborted already is answered with 200."),
			body:        reasonOnly(),
			answers:     []described{answers(http.StatusOK, "Ended: the run is aborted, with code interrupted.", typeOf[adapter.Reconciliation]())},
			problems:    []adapter.Code{adapter.CodeNotFound, adapter.CodeKeycloakNotConfigured, adapter.CodeInterrupted},
		},

		list("/projections", "listProjections", "operations", "List the projections and consumers", typeOf[page[ProjectionStatus]](), listing),
		{
			method: http.MethodPost, path: apiRoot + "/projections/{name}/rebuild", id: "rebuildProjection", tag: "operations", summary: "Fold a projection anew from the whole log",
			headers:  ownIdempotencyKey("May be sent. A rebuild gives the same rows however often it is made: the same key again while it is under way is answered as the first request was, and afterwards rebuilds again."),
			body:     reasonOnly(),
			answers:  []described{answers(http.StatusAccepted, "Begun.", typeOf[rebuildStarted]()).at("The list that tells how far it is.")},
			problems: []adapter.Code{adapter.CodeNotFound, adapter.CodeRunInProgress, adapter.CodeInterrupted},
		},
		list("/deliveries/parked", "listParkedDeliveries", "deliveries", "List the deliveries that could not be interpreted, the last parked first", typeOf[page[delivery]](), listing),
		show("/deliveries/{id}", "showDelivery", "deliveries", "Show one delivery, by its id or Keycloak's event id", typeOf[delivery](), nil, adapter.CodeNotFound),
		{
			method: http.MethodPost, path: apiRoot + "/deliveries/{id}/retry", id: "retryDelivery", tag: "deliveries", summary: "Interpret a parked delivery again",
			headers:  ownIdempotencyKey("May be sent. A delivery is interpreted once: with any key, one that was parked and is interpreted meanwhile is answered with 200 in the place of not_parked. A try that failed is made again."),
			body:     reasonOnly(),
			answers:  []described{answers(http.StatusOK, "Interpreted; those that waited behind it follow.", typeOf[delivery]())},
			problems: []adapter.Code{adapter.CodeNotFound, adapter.CodeNotParked, adapter.CodeWaitsBehind, adapter.CodeStillParked},
		},

		{
			method: http.MethodGet, path: apiRoot + "/openapi.json", id: "showOpenAPI", tag: "operations", summary: "This document",
			answers: []described{answers(http.StatusOK, "This document.", typeOf[map[string]any]())},
		},

		{
			method: http.MethodPost, path: "/webhooks/{source}", id: "receiveWebhook", tag: "webhooks", summary: "Record a Keycloak event, or a batch",
			description: "Answered once what came is committed to disk. The same event again is a duplicate and does no harm.",
			body: &requestBody{
				description: "One Keycloak event in any supported dialect, or a batch. Any other JSON object is kept as it is.",
				whole:       object{"type": "object", "properties": object{"events": object{"type": "array", "maxItems": webhook.MaxBatch, "items": object{"type": "object"}}}},
			},
			answers: []described{answers(http.StatusAccepted, "Committed.", typeOf[receipts]())},
			problems: []adapter.Code{
				adapter.CodeNotFound, codeMediaType, codeTooLarge, codeSignature, adapter.CodeInvalidRequest, codeTimeout,
				adapter.CodeOverloaded, adapter.CodeStoreUnavailable, adapter.CodeInternal,
			},
			security: bySignature,
		},
		{
			method: http.MethodGet, path: "/healthz", id: "healthy", tag: "operations", summary: "Say that the process runs",
			answers:  []described{answers(http.StatusOK, "It runs.", typeOf[health]())},
			problems: []adapter.Code{adapter.CodeInternal}, security: byNothing,
		},
		{
			method: http.MethodGet, path: "/readyz", id: "ready", tag: "operations", summary: "Say whether keytrail can serve, and what is in the way",
			description: "Anybody may ask; the details are for those with the token and for this machine.",
			answers: []described{
				answers(http.StatusOK, "Ready.", typeOf[readiness]()),
				answers(http.StatusServiceUnavailable, "Not ready, with the reasons.", typeOf[readiness]()),
			},
			problems: []adapter.Code{adapter.CodeInternal}, security: byNothing,
		},
		{
			method: http.MethodGet, path: "/metrics", id: "metrics", tag: "operations", summary: "Metrics for Prometheus",
			answers:  []described{{status: http.StatusOK, description: "The metrics.", text: []string{"text/plain", "application/openmetrics-text"}}},
			problems: []adapter.Code{codeUnauthorized, adapter.CodeInternal},
		},
	}
}

// schemaNames are the names of types whose Go name says less.
var schemaNames = map[reflect.Type]string{
	typeOf[adapter.UserView]():    "User",
	typeOf[adapter.UnreadView]():  "Unread",
	typeOf[adapter.View]():        "Event",
	typeOf[parked]():              "Parking",
	typeOf[inbound.Receipt]():     "Receipt",
	typeOf[rebuildStarted]():      "RebuildStarted",
	typeOf[fault]():               "Fault",
	typeOf[adapter.CallAttempt](): "Attempt",
}

// enums are the values of the types that have few.
var enums = map[reflect.Type][]any{
	typeOf[adapter.CallStatus](): valuesOf(callStatuses),
	typeOf[adapter.RunStatus]():  {adapter.RunRunning, adapter.RunCompleted, adapter.RunInvalid, adapter.RunAborted},
	typeOf[adapter.Situation]():  valuesOf(adapter.Situations),
	typeOf[adapter.ActorType](): {
		adapter.ActorKeycloakUser, adapter.ActorServiceAccount, adapter.ActorCLI, adapter.ActorToken, adapter.ActorSystem, adapter.ActorUnknown,
	},
	typeOf[adapter.DriftPhase](): {adapter.DriftAppeared, adapter.DriftAltered, adapter.DriftEnded},
	typeOf[adapter.AuditOutcome](): {
		adapter.AuditRequested, adapter.AuditSucceeded, adapter.AuditFailed, adapter.AuditUnknown, adapter.AuditSkipped, adapter.AuditObserved,
	},
	typeOf[adapter.AnalyticsBucket](): {adapter.BucketHour, adapter.BucketDay},
	typeOf[trace.Status]():            {trace.StatusOK, trace.StatusFailed, trace.StatusUnknown, trace.StatusOpen},
	typeOf[trace.SentenceKind](): {
		trace.SentenceOutcome, trace.SentenceFailedStep, trace.SentenceClass, trace.SentenceKeycloak, trace.SentenceTried,
		trace.SentenceNow, trace.SentenceAlso, trace.SentenceNext, trace.SentenceNote,
	},
	typeOf[trace.FailureKind](): {
		trace.FailureCallFailed, trace.FailureCallUnknown, trace.FailureCallOpen, trace.FailureDeliveryParked,
		trace.FailureDrift, trace.FailureReconciliationInvalid,
	},
}

func valuesOf[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

// otherWords are descriptions in the place of comments that speak to readers of the
// source.
var otherWords = map[string]string{
	"Trace.Events": "In the order in which they happened, none before its cause.",
	"View.Data":    "What happened, by event_type. Personal members of people who were forgotten are missing.",
	"View.Stream":  "The stream's name, such as user/acme/6a91.",
}
