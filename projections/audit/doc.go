// Package audit projects the audit trail: one row for every business action, with who
// did it, what, when, why, through what, and the old and new values.
//
// # What is in it
//
// The trail holds changes and refused changes. It holds
//
//   - every event on a user's stream; reads of a user (UserApiObserved) and adoptions
//     (UserApiBaselined) are marked as observed, since they show a change without
//     knowing who made it;
//   - every outbound call that would change something, until a user event tells of its
//     success: so calls that failed, were skipped or whose outcome is unknown or open,
//     and successful ones that change no user (such as a logout);
//   - Keycloak's admin events that no user event and no call tells of: changes to
//     roles, groups, clients and realms, actions on users that change no state (such
//     as an impersonation), and those that could not be interpreted (yet);
//   - user events that say that a change was refused, such as UPDATE_PASSWORD_ERROR;
//   - drift that appeared, changed or ended, marked as observed.
//
// Logins and other uses of an account change nothing and are left out, LOGIN_ERROR
// too; the analytics projection counts them.
//
// # One row an action
//
// Of several events that tell of one action the one that says the most has the row: a
// user event before a call, a call before an admin event. Such a row is taken out once
// the better one is folded.
//
// # Who
//
// An actor is shown as the event told who it was: Keycloak's stored events have the id of
// an account only, its pushed ones the user name as well. Every name that an account is
// seen to act under is kept beside the trail, so that the name finds the rows, too, that
// have the id alone, whatever was recorded first. A row that has a name is found by that
// one and by its id: an account may be renamed, and another take its name.
//
// # Order
//
// Old and new values follow the order in which things occurred. An event that comes
// late changes what the later events of its user changed, and their rows are written
// anew: rows do not depend on the order of arrival.
package audit
