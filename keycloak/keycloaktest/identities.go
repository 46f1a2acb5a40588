package keycloaktest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// identityProvider is a broker that users can be linked to.
type identityProvider struct {
	Alias      string            `json:"alias"`
	InternalID string            `json:"internalId,omitempty"`
	ProviderID string            `json:"providerId,omitempty"`
	Enabled    bool              `json:"enabled"`
	Config     map[string]string `json:"config,omitzero"`
}

const masked = "**********"

func (p identityProvider) masked() identityProvider {
	config := map[string]string{}
	for k, v := range p.Config {
		if k == "clientSecret" {
			v = masked
		}
		config[k] = v
	}
	p.Config = config
	return p
}

func (c *call) listIdentityProviders() reply {
	list := []identityProvider{}
	for _, p := range c.realm.idps {
		list = append(list, p.masked())
	}
	return ok(list)
}

func (c *call) createIdentityProvider() reply {
	var p identityProvider
	if err := json.Unmarshal(c.body, &p); err != nil {
		return oauthFail(http.StatusBadRequest, "invalid_request", "Cannot parse the JSON")
	}
	for _, have := range c.realm.idps {
		if have.Alias == p.Alias {
			return refuse(http.StatusConflict, "Identity Provider "+p.Alias+" already exists")
		}
	}
	p.InternalID = newID()
	c.realm.idps = append(c.realm.idps, &p)
	c.emit(adminEvent{op: opCreate, resource: "IDENTITY_PROVIDER", path: "identity-provider/instances/" + p.Alias, representation: encode(p.masked())})
	return c.created("/admin/realms/" + c.realm.name + "/identity-provider/instances/" + p.Alias)
}

func (c *call) listLinks(u *User) reply {
	return ok(append([]FederatedIdentity{}, c.realm.shownLinks(u)...))
}

// shownLinks leaves out links to providers that do not exist.
func (r *Realm) shownLinks(u *User) []FederatedIdentity {
	var list []FederatedIdentity
	for _, link := range u.FederatedIdentities {
		if slices.ContainsFunc(r.idps, func(p *identityProvider) bool { return p.Alias == link.IdentityProvider }) {
			list = append(list, link)
		}
	}
	return list
}

// addLink does not ask whether the provider exists. Its event is a USER CREATE, and
// the userId in its representation is the provider's.
func (c *call) addLink(u *User) reply {
	var link FederatedIdentity
	if r, ok := c.decode(&link, "FederatedIdentityRepresentation"); !ok {
		return r
	}
	provider := c.PathValue("provider")
	if slices.ContainsFunc(u.FederatedIdentities, func(l FederatedIdentity) bool { return l.IdentityProvider == provider }) {
		return refuse(http.StatusConflict, "User is already linked with provider")
	}
	representation := encode(link)
	link.IdentityProvider = provider
	u.FederatedIdentities = append(u.FederatedIdentities, link)
	c.emit(adminEvent{op: opCreate, resource: "USER", path: "users/" + u.ID + "/federated-identity/" + provider, representation: representation})
	return noContent()
}

// removeLink emits a USER DELETE for a user who is not deleted.
func (c *call) removeLink(u *User) reply {
	provider := c.PathValue("provider")
	i := slices.IndexFunc(u.FederatedIdentities, func(l FederatedIdentity) bool { return l.IdentityProvider == provider })
	if i < 0 {
		return fail(http.StatusNotFound, "Link not found")
	}
	u.FederatedIdentities = slices.Delete(u.FederatedIdentities, i, i+1)
	c.emit(adminEvent{op: opDelete, resource: "USER", path: "users/" + u.ID + "/federated-identity/" + provider})
	return noContent()
}

type bruteForceStatus struct {
	FailedLoginNotBefore     int64  `json:"failedLoginNotBefore"`
	NumFailures              int    `json:"numFailures"`
	NumTemporaryLockouts     int    `json:"numTemporaryLockouts"`
	Disabled                 bool   `json:"disabled"`
	NumSecondaryAuthFailures int    `json:"numSecondaryAuthFailures"`
	LastIPFailure            string `json:"lastIPFailure"`
	LastFailure              int    `json:"lastFailure"`
}

// SetLoginFailures sets how often a user has failed to log in, as brute force
// detection counts it; enabling the user then clears it with an event of its own.
// Failed password grants count too in a realm with bruteForceProtected.
func (r *Realm) SetLoginFailures(userID string, n int) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if n == 0 {
		delete(r.failures, userID)
		return
	}
	r.failures[userID] = n
}

func (c *call) getBruteForce() reply {
	status := bruteForceStatus{NumFailures: c.realm.failures[c.PathValue("user")], LastIPFailure: "n/a"}
	if u := c.realm.users[c.PathValue("user")]; u != nil && c.realm.locked(u) {
		status.Disabled, status.NumTemporaryLockouts = true, 1
		if until, known := c.realm.lockedUntil[u.ID]; known {
			status.FailedLoginNotBefore = until.Unix()
		}
	}
	return ok(status)
}

// locked says whether a user is locked for a while; the fake's lockouts do not end by
// themselves.
func (r *Realm) locked(u *User) bool { return r.bruteForce && r.failures[u.ID] >= r.failureFactor }

// countFailure counts a failed login. A user who is locked stays enabled; a user
// event tells.
func (s *Server) countFailure(r *Realm, u *User) {
	if !r.bruteForce {
		return
	}
	if r.failures[u.ID]++; r.failures[u.ID] == r.failureFactor {
		if r.lockedUntil == nil {
			r.lockedUntil = make(map[string]time.Time)
		}
		r.lockedUntil[u.ID] = s.clock().Add(time.Minute)
		s.emitUserEvent(r, userEvent{typ: "USER_DISABLED_BY_TEMPORARY_LOCKOUT", userID: u.ID, username: u.Username, details: map[string]string{
			"reason": "brute_force_attack detected", "num_failures": strconv.Itoa(r.failures[u.ID]),
			"not_before": r.lockedUntil[u.ID].UTC().Format("2006-01-02T15:04:05"),
		}})
	}
}

// clearBruteForce tells of one user only if there was something to clear.
func (c *call) clearBruteForce() reply {
	id := c.PathValue("user")
	path := "attack-detection/brute-force/users"
	if id == "" {
		clear(c.realm.failures)
		c.emit(adminEvent{op: opDelete, resource: "USER_LOGIN_FAILURE", path: path})
		return noContent()
	}
	if c.realm.failures[id] > 0 {
		delete(c.realm.failures, id)
		c.emit(adminEvent{op: opDelete, resource: "USER_LOGIN_FAILURE", path: path + "/" + id})
	}
	return noContent()
}

type importResult struct {
	Action       string `json:"action"`
	ResourceType string `json:"resourceType"`
	ResourceName string `json:"resourceName"`
	ID           string `json:"id"`
}

type importResults struct {
	Overwritten int            `json:"overwritten"`
	Added       int            `json:"added"`
	Skipped     int            `json:"skipped"`
	Results     []importResult `json:"results"`
}

// partialImport makes users whose events are of the resource type REALM.
func (c *call) partialImport() reply {
	var in struct {
		IfResourceExists string    `json:"ifResourceExists"`
		Users            []userRep `json:"users"`
	}
	if err := json.Unmarshal(c.body, &in); err != nil {
		return oauthFail(http.StatusBadRequest, "invalid_request", "Cannot parse the JSON")
	}
	exists := func(rep *userRep) *User { return c.realm.userByName(value(rep.Username)) }
	for i := range in.Users {
		if in.IfResourceExists == "FAIL" && exists(&in.Users[i]) != nil {
			return refuse(http.StatusConflict, "User with user name "+value(in.Users[i].Username)+" already exists.")
		}
	}
	out := importResults{Results: []importResult{}}
	for i := range in.Users {
		rep := &in.Users[i]
		old := exists(rep)
		result := importResult{Action: "ADDED", ResourceType: "USER", ResourceName: value(rep.Username)}
		op := opCreate
		switch {
		case old != nil && in.IfResourceExists != "OVERWRITE":
			out.Skipped++
			result.Action, result.ID = "SKIPPED", old.ID
			out.Results = append(out.Results, result)
			continue
		case old != nil:
			// It is another user afterwards: the id is new.
			out.Overwritten++
			result.Action, op = "OVERWRITTEN", opUpdate
			delete(c.realm.users, old.ID)
		default:
			out.Added++
		}
		u := c.realm.importUser(rep)
		result.ID = u.ID
		out.Results = append(out.Results, result)
		rep.ID = &u.ID
		c.emit(adminEvent{op: op, resource: "REALM", path: "users/" + u.ID, representation: rep.stripped()})
	}
	return ok(out)
}

// importUser makes a user of a full representation, as realm and partial import do:
// id, roles and groups count.
func (r *Realm) importUser(rep *userRep) *User {
	id := orNewID(value(rep.ID))
	u := &User{ID: id, CreatedTimestamp: r.s.now(), Attributes: map[string][]string{}, ClientRoles: map[string][]string{}}
	r.assign(u, rep)
	u.RealmRoles = slices.Clone(rep.RealmRoles)
	for clientID, roles := range rep.ClientRoles {
		u.ClientRoles[clientID] = slices.Clone(roles)
	}
	for _, path := range rep.Groups {
		if g := r.groupByPath(path); g != nil {
			u.Groups = append(u.Groups, g.id)
		}
	}
	u.FederatedIdentities = slices.Clone(rep.FederatedIdentities)
	if rep.ServiceAccountClientID != nil {
		u.ServiceAccountClientID = *rep.ServiceAccountClientID
		if cl := r.client(u.ServiceAccountClientID); cl != nil {
			cl.serviceAccount = u.ID
		}
	}
	r.users[u.ID] = u
	return u
}
