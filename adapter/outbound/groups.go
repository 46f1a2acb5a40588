package outbound

import (
	"context"
	"strings"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

const (
	groupsTemplate = "/admin/realms/{realm}/groups"
	groupTemplate  = groupsTemplate + "/{group}"

	// groupParam is the variable of a membership's address that names the group.
	groupParam = "group"
	// groupPage is how many groups are listed at once. Keycloak counts what lies below
	// each of them.
	groupPage = 100
)

// groupPath is the full path that a text gives, "" for an id. As Keycloak does on
// creation, it takes a slash at the end for none.
func groupPath(text string) string {
	if !strings.HasPrefix(text, "/") {
		return ""
	}
	return "/" + strings.TrimSuffix(text[1:], "/")
}

// isGroup reports whether the text names the group, by id or by path.
func isGroup(g keycloak.Group, text string) bool {
	if path := groupPath(text); path != "" {
		return g.Path == path
	}
	return g.ID == text
}

// settleGroup records which group a path has led to, in a call that names a group:
// Keycloak's own event of it has the id.
func settleGroup(rec *recording, read *adapter.ApiCallPreconditionRead, text string, found keycloak.Group) {
	if rec.template == membershipTemplate && groupPath(text) != "" {
		read.Params = map[string]string{groupParam: found.ID}
	}
}

func noGroup(text, realm string) error {
	return adapter.Errorf(adapter.CodeGroupNotFound, "there is no group %s in realm %s, or keytrail may not see it", text, realm)
}

// readGroup looks a group up by its id or, given a text that begins with a slash, by its
// full path.
func (c *Commands) readGroup(ctx context.Context, rec *recording, realm, text string) (found keycloak.Group, err error) {
	if groupPath(text) != "" {
		return c.findGroup(ctx, rec, realm, text)
	}
	err = rec.read(ctx, groupTemplate, func(ctx context.Context, _ *adapter.ApiCallPreconditionRead) error {
		var err error
		found, err = c.Keycloak.Group(ctx, realm, text)
		if Explain(err).Code == adapter.CodeGroupNotFound {
			return noGroup(text, realm)
		}
		return err
	})
	return found, err
}

// findGroup looks a group up by its full path, down the tree. Names may hold slashes, so
// that more than one branch may lead to it. A server that gives the same page again has
// no more of them.
func (c *Commands) findGroup(ctx context.Context, rec *recording, realm, text string) (keycloak.Group, error) {
	path := groupPath(text)
	for parents := []string{""}; len(parents) > 0; parents = parents[1:] {
		before := ""
		for first, more := 0, true; more; first += groupPage {
			var page []admin.GroupNode
			var found *keycloak.Group
			template := groupsTemplate
			if parents[0] != "" {
				template = groupTemplate + "/children"
			}
			err := rec.read(ctx, template, func(ctx context.Context, read *adapter.ApiCallPreconditionRead) error {
				var err error
				if page, err = c.Keycloak.Groups(ctx, realm, parents[0], first, groupPage); err != nil {
					if Explain(err).Code == adapter.CodeGroupNotFound {
						return noGroup(text, realm) // the one above it was deleted meanwhile
					}
					return err
				}
				onTheWay := false
				for _, g := range page {
					switch {
					case g.Path == path:
						found = &g.Group
						settleGroup(rec, read, text, g.Group)
					case strings.HasPrefix(path, g.Path+"/"):
						parents, onTheWay = append(parents, g.ID), true
					}
				}
				onTheWay = onTheWay || found != nil
				read.Found = &onTheWay
				return nil
			})
			if err != nil {
				return keycloak.Group{}, err
			}
			if found != nil {
				return *found, nil
			}
			if more = len(page) == groupPage && page[0].ID != before; more {
				before = page[0].ID
			}
		}
	}
	return keycloak.Group{}, noGroup(text, realm)
}
