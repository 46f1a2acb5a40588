package adapter

import (
	"maps"
	"slices"
)

// Codes of the outbound commands: what a rule refuses on a fresh read, and what
// Keycloak does not know.
const (
	CodeAlreadyHasRole Code = "already_has_role"
	CodeRoleNotHeld    Code = "role_not_held"
	CodeAlreadyMember  Code = "already_member"
	CodeNotMember      Code = "not_member"
	// CodeManagedMember refuses to remove a member whom the organization's identity
	// provider brought: Keycloak would delete the user.
	CodeManagedMember Code = "managed_member"
	CodeNotLocked     Code = "not_locked"
	CodeEmailMissing  Code = "email_missing"
	// CodeUserDisabled is what Keycloak does not do for a user who is disabled.
	CodeUserDisabled Code = "user_disabled"

	CodeRealmNotFound        Code = "realm_not_found"
	CodeRoleNotFound         Code = "role_not_found"
	CodeClientNotFound       Code = "client_not_found"
	CodeGroupNotFound        Code = "group_not_found"
	CodeOrganizationNotFound Code = "organization_not_found"

	CodePasswordRejected  Code = "password_rejected"
	CodeKeycloakMailFault Code = "keycloak_mail_fault"

	// CodePartiallyDone is a business action of several calls of which a later one was
	// not done: what came before it stands.
	CodePartiallyDone Code = "partially_done"
)

// Explanation is what the catalogue says about a code, for people: in the same words
// on the command line, in the API, on the page and in a trace.
type Explanation struct {
	// Title says in a few words what happened.
	Title string `json:"title"`
	// Cause is the usual cause, and Next the next step for the operator.
	Cause string `json:"cause"`
	Next  string `json:"next"`
}

// Explain looks a code up. One that is not in the catalogue is explained as
// CodeInternal is.
func (c Code) Explain() Explanation {
	if e, ok := catalogue[c]; ok {
		return e
	}
	return catalogue[CodeInternal]
}

// Codes are the codes of the catalogue, sorted.
func Codes() []Code { return slices.Sorted(maps.Keys(catalogue)) }

var catalogue = map[Code]Explanation{
	CodeInvalidRequest: {
		"The request is not valid",
		"a field is missing, misspelt or has a value of the wrong kind",
		"correct what the message names and send it again",
	},
	CodeNotFound: {
		"Not found",
		"the id is mistyped, or of another store",
		"look the id up in the list that it comes from",
	},
	CodeUserNotFound: {
		"The user does not exist",
		"the user was deleted, the name was changed, or it is another realm's",
		"keytrail user history with the user's id says what became of the user",
	},
	CodeNotYetKnown: {
		"Nothing was known at that moment",
		"keytrail has heard of the user only later",
		"ask for the moment that the message names, or a later one",
	},
	CodeAlreadyEnabled: {
		"The user is enabled already",
		"somebody else did it, or the same command was given twice",
		"nothing has to be done; keytrail user history says who enabled the user",
	},
	CodeAlreadyDisabled: {
		"The user is disabled already",
		"somebody else did it, or the same command was given twice",
		"nothing has to be done; keytrail user history says who disabled the user",
	},
	CodeAlreadyHasRole: {
		"The user has the role already",
		"somebody else gave it, or the same command was given twice",
		"nothing has to be done; keytrail user history says who gave it",
	},
	CodeRoleNotHeld: {
		"The user does not have the role directly",
		"somebody else took it, or the user has it through a group or another role",
		"look at the roles in keytrail user show; one that comes through a group is taken by leaving the group",
	},
	CodeAlreadyMember: {
		"The user is a member already",
		"somebody else did it, or the same command was given twice",
		"nothing has to be done; keytrail user history says since when",
	},
	CodeNotMember: {
		"The user is not a member",
		"somebody else ended the membership, or it is another group or organization of the same name",
		"look at the memberships in keytrail user show",
	},
	CodeManagedMember: {
		"The organization manages this user",
		"the user came through the organization's identity provider: Keycloak deletes such a user with the membership",
		"to delete the user is a decision of its own: keytrail user delete",
	},
	CodeNotLocked: {
		"The user is not locked out",
		"the lock-out has ended by itself, or the user is disabled for another reason",
		"where the user is disabled: keytrail user enable",
	},
	CodeEmailMissing: {
		"The user has no e-mail address",
		"none was ever given, or it was cleared",
		"set one with keytrail user update --email",
	},
	CodeUserDisabled: {
		"The user is disabled",
		"Keycloak sends no e-mail to a user who is disabled",
		"enable the user with keytrail user enable, then give the command again",
	},
	CodeIdempotencyKeyReused: {
		"The idempotency key belongs to another request",
		"the key was not made anew for a new request",
		"send the request again with a new key",
	},
	CodeNotParked: {
		"The delivery is not parked",
		"it was interpreted meanwhile",
		"nothing has to be done",
	},
	CodeWaitsBehind: {
		"Another delivery comes first",
		"an earlier delivery about the same user is parked",
		"try the earlier one again first; the message names it",
	},
	CodeStillParked: {
		"The delivery still cannot be interpreted",
		"what was wrong with it is still wrong",
		"read its reason and its body; a newer keytrail may know how to read it",
	},
	CodeNotBuilt: {
		"This part is not built yet",
		"the version of keytrail does not have it",
		"keytrail --help says what there is",
	},
	CodeOverloaded: {
		"Too many requests at once",
		"more is asked than the store can commit",
		"send the same request again later, and fewer at once",
	},
	CodeStoreUnavailable: {
		"The event store cannot commit now",
		"the database is down, full, or out of reach",
		"bring the store back; GET /readyz says what is wrong with it",
	},
	CodeInternal: {
		"Something inside keytrail failed",
		"a fault of keytrail's own",
		"look into keytrail's log for the same correlation id, and report it",
	},
	CodeKeycloakNotConfigured: {
		"No Keycloak is configured",
		"keytrail runs on webhooks alone",
		"set KEYTRAIL_KEYCLOAK_URL, KEYTRAIL_KEYCLOAK_CLIENT_ID and KEYTRAIL_KEYCLOAK_CLIENT_SECRET",
	},
	CodeKeycloakInvalid: {
		"Keycloak does not accept the values",
		"a value breaks a rule of the realm's user profile, or is too long",
		"correct the field that the message names, or the rule under Realm settings, User profile",
	},
	CodePasswordRejected: {
		"Keycloak does not accept the password",
		"it breaks the realm's password policy, or was used before",
		"choose another one; the policy is under Authentication, Policies",
	},
	CodeKeycloakUnauthorized: {
		"Keycloak does not accept keytrail's client",
		"the client's secret was changed, the client is disabled or belongs to another realm",
		"check KEYTRAIL_KEYCLOAK_CLIENT_ID, KEYTRAIL_KEYCLOAK_CLIENT_SECRET and KEYTRAIL_KEYCLOAK_AUTH_REALM",
	},
	CodeKeycloakForbidden: {
		"Keycloak does not let keytrail do this",
		"the service account lacks a role of realm-management",
		"give it the role that the message names: the client's page, Service account roles",
	},
	CodeKeycloakNotFound: {
		"Keycloak does not know this",
		"the realm's name or KEYTRAIL_KEYCLOAK_URL is wrong, or a feature is switched off",
		"check both names; a context path such as /auth belongs to the URL",
	},
	CodeRealmNotFound: {
		"The realm does not exist",
		"its name is mistyped, or it was renamed",
		"check the realm's name; upper and lower case differ",
	},
	CodeRoleNotFound: {
		"The role does not exist",
		"its name is mistyped, it was renamed or deleted, or it is a client's and not the realm's",
		"check the name; for a client's role name the client as well",
	},
	CodeClientNotFound: {
		"The client does not exist",
		"its client id is mistyped, or the service account may not see clients",
		"check the client id; the service account needs view-clients",
	},
	CodeGroupNotFound: {
		"The group does not exist",
		"it was deleted, or a path or name stands where its id should",
		"take the group's id from Keycloak's admin console",
	},
	CodeOrganizationNotFound: {
		"The organization does not exist",
		"it was deleted, a name stands where its id should, or organizations are off in the realm",
		"take the id from Keycloak's admin console; Realm settings say whether organizations are on",
	},
	CodeKeycloakConflict: {
		"Keycloak refused: it is taken",
		"another user has the same name or e-mail address",
		"find that user with keytrail user list, and choose another value",
	},
	CodeKeycloakRejected: {
		"Keycloak gave an unexpected answer",
		"a proxy or a login page answers in Keycloak's place, or the version is one that keytrail does not know",
		"open KEYTRAIL_KEYCLOAK_URL and see who answers",
	},
	CodeKeycloakUnavailable: {
		"Keycloak cannot serve now",
		"it is starting, overloaded, or failed inside",
		"look into Keycloak's log for the same moment, then give the command again",
	},
	CodeKeycloakUnreachable: {
		"Keycloak could not be reached",
		"it is down, or the address, the network or a proxy is wrong",
		"check KEYTRAIL_KEYCLOAK_URL from this machine, then give the command again: nothing was changed",
	},
	CodeKeycloakMailFault: {
		"Keycloak could not send the e-mail",
		"the realm has no mail server, or that refused the message",
		"test the connection under Realm settings, Email; Keycloak's log has the server's answer",
	},
	CodeOutcomeUnknown: {
		"The outcome is not known",
		"the answer was lost, or Keycloak failed while it worked",
		"wait for Keycloak's event, which settles it, or compare with keytrail reconcile; do not repeat it blindly",
	},
	CodeInterrupted: {
		"Interrupted before it was done",
		"the process was stopped, or whoever asked went away",
		"keytrail trace says how far it came; give the command again where nothing was written",
	},
	CodePartiallyDone: {
		"Done in part",
		"a later call of the same action failed; what came before it stands",
		"give the missing parts as commands of their own; the message names them",
	},
	CodeListingIncomplete: {
		"Keycloak's list of users is incomplete",
		"users changed while it was read, or an answer broke off",
		"run the reconciliation again",
	},
	CodeListingEmpty: {
		"Keycloak's list of users is empty",
		"the service account may not see users: query-users alone gives an empty list",
		"give the service account the role view-users",
	},
	CodeProjectionBehind: {
		"The projections are behind",
		"more events arrive than are folded, or a projection failed",
		"keytrail projections status says which and how far",
	},
	CodeRunInProgress: {
		"Such a run is under way already",
		"another process or person started it",
		"wait for it to end, or read its state",
	},
}
