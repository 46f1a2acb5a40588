package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// Memberships reads who has which roles, groups and organizations: of one user, or of
// one role, group or organization. A page may come short in the middle; the end of a
// list is an empty one.
type Memberships interface {
	// UserRoles leaves out the roles of clients that the service account may not view.
	UserRoles(ctx context.Context, realm, id string) (keycloak.RoleMappings, error)
	UserGroups(ctx context.Context, realm, id string) ([]keycloak.Group, error)
	UserOrganizations(ctx context.Context, realm, id string) ([]keycloak.Organization, error)

	RealmRoles(ctx context.Context, realm string) ([]keycloak.Role, error)
	Clients(ctx context.Context, realm string, first, max int) ([]keycloak.Client, error)
	// ClientRoles lists the roles of the client whose internal UUID is given.
	ClientRoles(ctx context.Context, realm, client string) ([]keycloak.Role, error)
	// Groups lists the groups directly below one, or the top-level ones where parent is
	// empty.
	Groups(ctx context.Context, realm, parent string, first, max int) ([]admin.GroupNode, error)
	Organizations(ctx context.Context, realm string, first, max int) ([]keycloak.Organization, error)

	// RoleUsers lists who has a role directly: a realm role where client is empty.
	RoleUsers(ctx context.Context, realm, client, role string, first, max int) ([]keycloak.User, error)
	GroupMembers(ctx context.Context, realm, group string, first, max int) ([]keycloak.User, error)
	OrganizationMembers(ctx context.Context, realm, organization string, first, max int) ([]keycloak.User, error)
}

// membershipFields are compared beside the profile, each where it can be read.
var membershipFields = []string{
	adapter.FieldRoles, adapter.FieldClientRoles, adapter.FieldGroups, adapter.FieldOrganizations,
}

// comparedFields is the order in which differences are told.
var comparedFields = slices.Concat(profileFields, membershipFields)

// way is how a run reads a field.
type way int

const (
	// unread is a field that is not compared.
	unread way = iota
	// swept is a field read by a list for each role, group or organization.
	swept
	// alone is a field read of each user alone.
	alone
)

// container is a role, a group or an organization.
type container struct {
	field string
	// id is a group's or an organization's, client the internal UUID of a role's client.
	id, client string
	// name is a role's name, a group's path or an organization's alias.
	name string
}

// holding says that a user has something. The user is a digest: see digests.
type holding struct {
	user      uint64
	container uint32
}

// memberships is what a run knows of who has what: 16 bytes a membership.
type memberships struct {
	ways map[string]way
	// without says why a field is not compared.
	without map[string]adapter.NotCompared
	// since is when the sweep began. What it tells holds at that time or later.
	since      time.Time
	containers []container
	held       []holding
	// clients are the client_ids by internal UUID.
	clients map[string]string
	// requests were spent on listing what there is.
	requests int
}

func newMemberships() *memberships {
	return &memberships{
		ways: map[string]way{}, without: map[string]adapter.NotCompared{}, clients: map[string]string{},
	}
}

// from names the fields that are read in one way.
func (m *memberships) from(w way) []string {
	return slices.DeleteFunc(slices.Clone(membershipFields), func(field string) bool { return m.ways[field] != w })
}

// scope is which fields the run has compared, and why not the others.
func (m *memberships) scope() (compared []string, without []adapter.NotCompared) {
	compared = slices.Clone(profileFields)
	for _, field := range membershipFields {
		if why, ok := m.without[field]; ok {
			without = append(without, why)
		} else {
			compared = append(compared, field)
		}
	}
	return compared, without
}

// of is what the sweep tells of a user.
func (m *memberships) of(user uint64) adapter.Memberships {
	var (
		roles, groups = []string{}, []string{}
		clientRoles   = map[string][]string{}
		organizations = []adapter.Organization{}
		clients       = map[string]string{}
	)
	i, _ := slices.BinarySearchFunc(m.held, user, func(h holding, user uint64) int { return cmp.Compare(h.user, user) })
	for ; i < len(m.held) && m.held[i].user == user; i++ {
		switch c := m.containers[m.held[i].container]; c.field {
		case adapter.FieldRoles:
			roles = append(roles, c.name)
		case adapter.FieldClientRoles:
			id := m.clients[c.client]
			clientRoles[id] = append(clientRoles[id], c.name)
			clients[c.client] = id
		case adapter.FieldGroups:
			groups = append(groups, c.name)
		case adapter.FieldOrganizations:
			organizations = append(organizations, adapter.Organization{ID: c.id, Alias: c.name})
		}
	}
	return pickMemberships(adapter.Memberships{
		Roles: adapter.Set(roles), ClientRoles: adapter.Set(clientRoles), Groups: adapter.Set(groups),
		Organizations: adapter.Set(organizations), Clients: clients,
	}, m.from(swept)...)
}

// sweep finds out who has what, by the way that takes fewer requests: one or more for
// each role, group and organization, or two or three for each of the users. Where the
// service account may not list something, that field is compared another way or not at
// all; where a list fails, it is not compared, and the run says so.
func (n *run) sweep(ctx context.Context, users int) error {
	m := n.memberships
	m.since = n.Clock()
	clients, err := n.listClients(ctx)
	if err != nil {
		return err
	}
	if err := n.listOrganizations(ctx); err != nil {
		return err
	}
	for _, field := range membershipFields {
		if _, without := m.without[field]; !without {
			m.ways[field] = swept
		}
	}
	budget := 2 * users
	if m.ways[adapter.FieldOrganizations] == swept {
		budget += users
	}
	affordable, err := n.listContainers(ctx, users, budget, clients)
	if err != nil {
		return err
	}
	if !affordable {
		m.containers = nil
		for _, field := range m.from(swept) {
			m.ways[field] = alone
		}
	}
	n.log.DebugContext(ctx, "comparing memberships", "users", users, "listed", len(m.containers),
		"swept", m.from(swept), "read_alone", m.from(alone))
	for i := range m.containers {
		if err := n.sweepContainer(ctx, i); err != nil {
			return err
		}
	}
	slices.SortFunc(m.held, func(a, b holding) int {
		return cmp.Or(cmp.Compare(a.user, b.user), cmp.Compare(a.container, b.container))
	})
	// Pages that shift show a holder twice.
	m.held = slices.Compact(m.held)
	return nil
}

// listClients reads the clients. Without them client roles cannot be compared: of one
// user alone Keycloak leaves out, with a 200, the roles of clients that may not be seen.
func (n *run) listClients(ctx context.Context) ([]keycloak.Client, error) {
	const needs = "view-clients"
	var clients []keycloak.Client
	err := eachPage(ctx, n, n.PageSize, func(c keycloak.Client) string { return c.ID },
		func(first, limit int) ([]keycloak.Client, error) {
			n.memberships.requests++
			return n.Live.Clients(ctx, n.realm, first, limit)
		},
		func(page []keycloak.Client) error {
			clients = append(clients, page...)
			return nil
		})
	switch {
	case err != nil:
		return nil, n.leaveOut(ctx, "listing the clients", err, needs, adapter.FieldClientRoles)
	case len(clients) == 0:
		n.forbid(needs, adapter.FieldClientRoles)
	}
	for _, c := range clients {
		n.memberships.clients[c.ID] = c.ClientID
	}
	return clients, nil
}

// listOrganizations reads the organizations. Where there are none, none may be what the
// service account is permitted to see.
func (n *run) listOrganizations(ctx context.Context) error {
	const needs = "view-organizations"
	m := n.memberships
	err := eachPage(ctx, n, n.PageSize, func(o keycloak.Organization) string { return o.ID },
		func(first, limit int) ([]keycloak.Organization, error) {
			m.requests++
			return n.Live.Organizations(ctx, n.realm, first, limit)
		},
		func(page []keycloak.Organization) error {
			for _, o := range page {
				m.containers = append(m.containers, container{field: adapter.FieldOrganizations, id: o.ID, name: o.Alias})
			}
			return nil
		})
	var api *keycloak.APIError
	switch {
	case errors.As(err, &api) && api.Kind == keycloak.KindNotFound && !admin.NotSent(err):
		n.without(adapter.FieldOrganizations, adapter.CodeKeycloakNotFound, "the realm has organizations switched off")
	case err != nil:
		return n.leaveOut(ctx, "listing the organizations", err, needs, adapter.FieldOrganizations)
	case len(m.containers) == 0:
		n.without(adapter.FieldOrganizations, adapter.CodeKeycloakNotFound,
			"Keycloak lists no organizations: the realm has none, or the service account lacks "+needs)
	}
	return nil
}

// listContainers lists roles and groups, and reports false as soon as it is clear that
// reading each user alone takes fewer requests.
func (n *run) listContainers(ctx context.Context, users, budget int, clients []keycloak.Client) (bool, error) {
	m := n.memberships
	// Each list that holds anything ends with an empty page.
	affordable := func(more int) bool { return m.requests+2*len(m.containers)+more <= budget }
	if !affordable(1 + len(clients)) {
		return false, nil
	}
	roles, err := n.listRoles(ctx, "")
	var api *keycloak.APIError
	switch {
	case errors.As(err, &api) && api.Kind == keycloak.KindForbidden && users <= n.MaxReads:
		// With view-users alone each user tells its own.
		m.ways[adapter.FieldRoles] = alone
	case err != nil:
		if err := n.leaveOut(ctx, "listing the roles", err, "view-realm", adapter.FieldRoles); err != nil {
			return false, err
		}
	}
	m.containers = append(m.containers, roles...)
	for _, client := range clients {
		if !affordable(1) {
			return false, nil
		}
		roles, err := n.listRoles(ctx, client.ID)
		if err != nil {
			if err := n.leaveOut(ctx, "listing the roles of client "+client.ClientID, err, "view-clients", adapter.FieldClientRoles); err != nil {
				return false, err
			}
			break
		}
		m.containers = append(m.containers, roles...)
	}
	ok, err := n.listGroups(ctx, affordable)
	return ok && affordable(0), err
}

// defaultRoles starts the name of the role that every user of a realm has, and that
// counts for nobody.
const defaultRoles = "default-roles-"

func (n *run) listRoles(ctx context.Context, client string) ([]container, error) {
	if err := n.turn(ctx); err != nil {
		return nil, err
	}
	n.memberships.requests++
	var roles []keycloak.Role
	var err error
	field := adapter.FieldClientRoles
	if client == "" {
		field = adapter.FieldRoles
		roles, err = n.Live.RealmRoles(ctx, n.realm)
	} else {
		roles, err = n.Live.ClientRoles(ctx, n.realm, client)
	}
	if err != nil {
		return nil, err
	}
	containers := make([]container, 0, len(roles))
	for _, r := range roles {
		if client != "" || !strings.HasPrefix(r.Name, defaultRoles) {
			containers = append(containers, container{field: field, client: client, name: r.Name})
		}
	}
	return containers, nil
}

// listGroups walks the tree of groups, level by level.
func (n *run) listGroups(ctx context.Context, affordable func(more int) bool) (bool, error) {
	m := n.memberships
	for parents := []string{""}; len(parents) > 0; parents = parents[1:] {
		if !affordable(len(parents)) {
			return false, nil
		}
		err := eachPage(ctx, n, n.PageSize, func(g admin.GroupNode) string { return g.ID },
			func(first, limit int) ([]admin.GroupNode, error) {
				m.requests++
				return n.Live.Groups(ctx, n.realm, parents[0], first, limit)
			},
			func(page []admin.GroupNode) error {
				for _, g := range page {
					m.containers = append(m.containers, container{field: adapter.FieldGroups, id: g.ID, name: g.Path})
					if g.SubGroupCount == nil || *g.SubGroupCount > 0 {
						parents = append(parents, g.ID)
					}
				}
				return nil
			})
		var api *keycloak.APIError
		if parents[0] != "" && errors.As(err, &api) && api.Kind == keycloak.KindNotFound {
			continue // the group was deleted meanwhile
		}
		if err != nil {
			return true, n.leaveOut(ctx, "listing the groups", err, "view-users", adapter.FieldGroups)
		}
	}
	return true, nil
}

// sweepContainer reads who has one role, group or organization.
func (n *run) sweepContainer(ctx context.Context, i int) error {
	m, c := n.memberships, n.memberships.containers[i]
	if m.ways[c.field] != swept {
		return nil
	}
	// Brief entries have a fifth of the size of full ones.
	size := min(5*n.PageSize, MaxPageSize)
	err := eachPage(ctx, n, size, func(u keycloak.User) string { return u.ID },
		func(first, limit int) ([]keycloak.User, error) {
			switch c.field {
			case adapter.FieldGroups:
				return n.Live.GroupMembers(ctx, n.realm, c.id, first, limit)
			case adapter.FieldOrganizations:
				return n.Live.OrganizationMembers(ctx, n.realm, c.id, first, limit)
			default:
				return n.Live.RoleUsers(ctx, n.realm, c.client, c.name, first, limit)
			}
		},
		func(page []keycloak.User) error {
			if len(m.held)+len(page) > n.MaxMemberships {
				return errTooMany
			}
			for _, u := range page {
				m.held = append(m.held, holding{user: n.digests.of("id", u.ID), container: uint32(i)}) //nolint:gosec // far fewer containers than memberships
			}
			return nil
		})
	var api *keycloak.APIError
	switch {
	case errors.Is(err, errTooMany):
		m.held = slices.DeleteFunc(m.held, func(h holding) bool { return m.containers[h.container].field == c.field })
		n.without(c.field, adapter.CodeListingIncomplete,
			fmt.Sprintf("more than %d memberships do not fit into one run", n.MaxMemberships))
	case errors.As(err, &api) && api.Kind == keycloak.KindNotFound && !strings.Contains(c.name, "/"):
		return nil // it was deleted meanwhile, and nobody has it
	case errors.As(err, &api) && api.Kind == keycloak.KindNotFound && c.field == adapter.FieldGroups:
		return nil
	case err != nil:
		return n.leaveOut(ctx, fmt.Sprintf("listing who has %s %s", c.field, c.name), err, "view-users", c.field)
	}
	return nil
}

// errTooMany ends the reading of a list that does not fit.
var errTooMany = errors.New("more memberships than fit")

// eachPage reads a list to its end, or to visit's first error, at the rate that the run
// may. The offset grows by what has come, so that a server which caps a page's size skips
// nobody.
func eachPage[T any](ctx context.Context, n *run, size int, id func(T) string, read func(first, limit int) ([]T, error), visit func([]T) error) error {
	var previous string
	for first := 0; ; {
		if err := n.turn(ctx); err != nil {
			return err
		}
		page, err := read(first, size)
		if err != nil || len(page) == 0 {
			return err
		}
		ends := id(page[0]) + " " + id(page[len(page)-1])
		if ends == previous {
			return adapter.Errorf(adapter.CodeListingIncomplete, "the list does not end").
				WithTry("look for a proxy that drops the query parameters first and max")
		}
		previous = ends
		if err := visit(page); err != nil {
			return err
		}
		first += len(page)
	}
}

// turn waits until the run may send another request.
func (n *run) turn(ctx context.Context) error {
	if err := n.Reads.Wait(ctx); err != nil {
		// The context has ended, or would before it is this request's turn.
		return interrupted("waiting to read", err)
	}
	return n.stillOurs(ctx)
}

// without notes that a field is not compared, from here on.
func (n *run) without(field string, code adapter.Code, reason string) {
	n.memberships.ways[field] = unread
	if _, known := n.memberships.without[field]; !known {
		n.memberships.without[field] = adapter.NotCompared{Field: field, Code: code, Reason: reason}
	}
}

func (n *run) forbid(needs string, fields ...string) {
	for _, field := range fields {
		n.without(field, adapter.CodeKeycloakForbidden,
			"the service account lacks the role "+needs+" of the realm's realm-management client")
	}
}

// leaveOut notes that fields are not compared because a read failed. It returns an
// error only where the run itself cannot go on. needs is the role that the read takes.
func (n *run) leaveOut(ctx context.Context, doing string, err error, needs string, fields ...string) error {
	why := n.keycloakFailure(ctx, doing, err)
	strict := n.req.Trigger == adapter.TriggerBaseline && why.err.Code != adapter.CodeKeycloakForbidden
	switch {
	case why.status != adapter.RunInvalid, why.err.Code == adapter.CodeKeycloakUnauthorized:
		return why
	case strict:
		// A starting point without its memberships is none: the baseline is tried again.
		return why
	case why.err.Code == adapter.CodeKeycloakForbidden:
		n.forbid(needs, fields...)
		n.log.InfoContext(ctx, "memberships are not compared", "fields", fields, "missing_role", needs)
		return nil
	default:
		if why.err.Code == adapter.CodeKeycloakNotFound {
			// What was listed a moment ago cannot be addressed. It is not that there is none.
			why.err.Code, why.err.Try = adapter.CodeListingIncomplete, "look for a proxy that refuses encoded slashes"
		}
		for _, field := range fields {
			n.without(field, why.err.Code, message(why.err))
		}
	}
	n.log.WarnContext(ctx, "memberships are not compared", "fields", fields, "code", why.err.Code, "error", why.err.Detail)
	return nil
}

// readMemberships reads fields of one user alone. What it cannot read it leaves out: for
// this user where it was not found, and otherwise for the rest of the run.
func (n *run) readMemberships(ctx context.Context, id string, fields []string) (adapter.Memberships, error) {
	var m adapter.Memberships
	// attempt makes one request and sorts out its failure.
	attempt := func(doing, needs string, read func() error, fields ...string) error {
		if len(fields) == 0 {
			return nil
		}
		if err := n.turn(ctx); err != nil {
			return err
		}
		err := read()
		var api *keycloak.APIError
		if err == nil || errors.As(err, &api) && api.Kind == keycloak.KindNotFound && !admin.NotSent(err) {
			return nil
		}
		return n.leaveOut(ctx, doing+" of user "+id, err, needs, fields...)
	}
	wanted := func(candidates ...string) []string {
		return slices.DeleteFunc(candidates, func(f string) bool { return !slices.Contains(fields, f) })
	}
	mapped := wanted(adapter.FieldRoles, adapter.FieldClientRoles)
	err := attempt("reading the roles", "view-users", func() error {
		mappings, err := n.Live.UserRoles(ctx, n.realm, id)
		if err == nil {
			m = pickMemberships(rolesOf(mappings), mapped...)
		}
		return err
	}, mapped...)
	if err != nil {
		return m, err
	}
	err = attempt("reading the groups", "view-users", func() error {
		groups, err := n.Live.UserGroups(ctx, n.realm, id)
		if err != nil {
			return err
		}
		paths := make([]string, len(groups))
		for i, g := range groups {
			if paths[i] = g.Path; g.Path == "" {
				return adapter.Errorf(adapter.CodeListingIncomplete, "a group has no path")
			}
		}
		m.Groups = adapter.Set(paths)
		return nil
	}, wanted(adapter.FieldGroups)...)
	if err != nil {
		return m, err
	}
	return m, attempt("reading the organizations", "view-organizations", func() error {
		organizations, err := n.Live.UserOrganizations(ctx, n.realm, id)
		if err == nil {
			m.Organizations = adapter.Set(organizationsOf(organizations))
		}
		return err
	}, wanted(adapter.FieldOrganizations)...)
}

// rolesOf is what a user's role mappings tell.
func rolesOf(mappings keycloak.RoleMappings) adapter.Memberships {
	roles, clientRoles, clients := []string{}, map[string][]string{}, map[string]string{}
	for _, r := range mappings.RealmMappings {
		roles = append(roles, r.Name)
	}
	for key, client := range mappings.ClientMappings {
		id := cmp.Or(client.Client, key)
		for _, r := range client.Mappings {
			clientRoles[id] = append(clientRoles[id], r.Name)
		}
		if client.ID != "" {
			clients[client.ID] = id
		}
	}
	return adapter.Memberships{Roles: adapter.Set(roles), ClientRoles: adapter.Set(clientRoles), Clients: clients}
}

func organizationsOf(organizations []keycloak.Organization) []adapter.Organization {
	out := make([]adapter.Organization, len(organizations))
	for i, o := range organizations {
		out[i] = adapter.Organization{ID: o.ID, Alias: o.Alias}
	}
	return out
}

// toldBySweep is what the sweep tells of a live user, and nothing of one who came to
// be after it began.
func (n *run) toldBySweep(live keycloak.User) adapter.Memberships {
	if at := createdAt(live); at != nil && !at.Before(n.memberships.since) && at.Before(n.memberships.since.Add(maxAhead)) {
		return adapter.Memberships{}
	}
	return n.memberships.of(n.digests.of("id", live.ID))
}

// told is a user's memberships as they were read.
type told struct {
	adapter.Memberships
	// at is when they were read, at the latest: events after that may not be in them.
	at time.Time
}

// listedMemberships is what is known of a listed user's memberships.
func (n *run) listedMemberships(ctx context.Context, live keycloak.User, readAt time.Time) (told, error) {
	fresh, err := n.readMemberships(ctx, live.ID, n.memberships.from(alone))
	if err != nil {
		return told{}, err
	}
	return n.overlay(n.toldBySweep(live), fresh, readAt), nil
}

// overlay puts what was read of a user alone over what the sweep told.
func (n *run) overlay(bySweep, fresh adapter.Memberships, readAt time.Time) told {
	left := slices.DeleteFunc(bySweep.Fields(), func(f string) bool { return slices.Contains(fresh.Fields(), f) })
	t := told{Memberships: merge(pickMemberships(bySweep, left...), fresh), at: readAt}
	if len(left) > 0 {
		t.at = n.memberships.since
	}
	return t
}

// judgedMemberships is what is known of a suspect's memberships: where the sweep agrees
// with belief, what it told; the other fields are read of this user alone.
func (n *run) judgedMemberships(ctx context.Context, live keycloak.User, believed adapter.User, readAt time.Time) (told, error) {
	bySweep := n.toldBySweep(live)
	c := CompareMemberships(believed, n.withClientIDs(believed, bySweep))
	var agreed []string
	for _, field := range bySweep.Fields() {
		is := func(d Difference) bool { return d.Field == field }
		if !slices.ContainsFunc(c.Differences, is) && !slices.ContainsFunc(c.Dropped, is) {
			agreed = append(agreed, field)
		}
	}
	fields := slices.DeleteFunc(slices.Clone(membershipFields), func(f string) bool {
		return n.memberships.ways[f] == unread || slices.Contains(agreed, f)
	})
	if len(fields) == 0 {
		return n.overlay(bySweep, adapter.Memberships{}, readAt), nil
	}
	fresh, err := n.readMemberships(ctx, live.ID, fields)
	return n.overlay(pickMemberships(bySweep, agreed...), fresh, readAt), err
}

// withClientIDs names to m the clients that belief knows by UUID, for m itself names only
// those of which the live user has roles.
func (n *run) withClientIDs(believed adapter.User, m adapter.Memberships) adapter.Memberships {
	if !m.ClientRoles.Present() {
		return m
	}
	clients := maps.Clone(m.Clients)
	for client := range believed.ClientRoles {
		if id, ok := n.memberships.clients[client]; ok {
			if clients == nil {
				clients = map[string]string{}
			}
			clients[client] = id
		}
	}
	m.Clients = clients
	return m
}

// carried are the differences of an open drift in fields of which nothing is told now.
// They stand until something is.
func (n *run) carried(id string, m adapter.Memberships) []adapter.FieldDifference {
	previous := n.open[id]
	if previous.Situation != adapter.SituationChanged && previous.Situation != adapter.SituationDuplicate {
		return nil
	}
	var carried []adapter.FieldDifference
	for _, d := range previous.Fields {
		if slices.Contains(membershipFields, d.Field) && !slices.Contains(m.Fields(), d.Field) {
			carried = append(carried, d)
		}
	}
	return carried
}

// withCarried adds differences that stand, in the order of fields.
func withCarried(fields, carried []adapter.FieldDifference) []adapter.FieldDifference {
	if len(carried) == 0 {
		return fields
	}
	fields = slices.Concat(fields, carried)
	slices.SortStableFunc(fields, func(a, b adapter.FieldDifference) int {
		return cmp.Compare(slices.Index(comparedFields, a.Field), slices.Index(comparedFields, b.Field))
	})
	return fields
}

// whole reports whether the memberships are all that there are.
func (n *run) whole(m adapter.Memberships) bool {
	fields := m.Fields()
	return !slices.ContainsFunc(membershipFields, func(f string) bool {
		return !slices.Contains(fields, f) && n.memberships.without[f].Code != adapter.CodeKeycloakNotFound
	})
}

// pickMemberships is the part of m that concerns the fields named.
func pickMemberships(m adapter.Memberships, fields ...string) adapter.Memberships {
	var out adapter.Memberships
	for _, field := range fields {
		switch field {
		case adapter.FieldRoles:
			out.Roles = m.Roles
		case adapter.FieldClientRoles:
			out.ClientRoles, out.Clients = m.ClientRoles, m.Clients
		case adapter.FieldGroups:
			out.Groups = m.Groups
		case adapter.FieldOrganizations:
			out.Organizations = m.Organizations
		}
	}
	return out
}

// merge is a with what b tells in its place.
func merge(a, b adapter.Memberships) adapter.Memberships {
	for _, field := range b.Fields() {
		switch field {
		case adapter.FieldRoles:
			a.Roles = b.Roles
		case adapter.FieldClientRoles:
			a.ClientRoles, a.Clients = b.ClientRoles, b.Clients
		case adapter.FieldGroups:
			a.Groups = b.Groups
		case adapter.FieldOrganizations:
			a.Organizations = b.Organizations
		}
	}
	return a
}
