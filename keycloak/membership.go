package keycloak

// Client is the part of a ClientRepresentation that keytrail reads.
type Client struct {
	// ID is the internal UUID, which stands in URLs and in admin events; ClientID is
	// the name that people and applications use.
	ID       string `json:"id"`
	ClientID string `json:"clientId"`
}

// Organization is the part of an OrganizationRepresentation that keytrail reads.
type Organization struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Alias string `json:"alias"`
}

// MembershipManaged is the membership of a user whom the organization's identity
// provider brought. Removing such a member deletes the user, and emits no USER DELETE
// (OrganizationMemberResource.java).
const MembershipManaged = "MANAGED"

// Member is a member of an organization.
type Member struct {
	User
	MembershipType string `json:"membershipType"`
}

// LoginFailures is what brute-force detection knows of a user.
type LoginFailures struct {
	NumFailures int `json:"numFailures"`
	// Disabled is true for a user who is locked out now: for a while, and then still
	// enabled, or for good, and then disabled (26.1.4 and 26.7.3).
	Disabled bool `json:"disabled"`
	// NotBefore is when a temporary lock-out ends, in seconds since 1970, 0 where there is
	// none (26.7.3).
	NotBefore int64 `json:"failedLoginNotBefore"`
}
