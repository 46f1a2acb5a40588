package users

import "github.com/keytrail/keytrail/adapter"

// What a user costs in memory, measured on users with ten events each.
const (
	sizeOfUser   = 1 << 10
	sizeOfOrigin = 320
	sizeOfItem   = 64
)

// sizeOf is about how many bytes a user takes. Texts are shared with the events that set
// them, which are kept as long as any of their texts is: sizeOfOrigin has their part.
func sizeOf(u *adapter.User) int {
	size := sizeOfUser + sizeOfOrigin*len(u.Origins)
	items := len(u.Roles) + len(u.Groups) + len(u.Organizations) + len(u.RequiredActions) + len(u.ClientIDs)
	for _, roles := range u.ClientRoles {
		items += 1 + len(roles)
	}
	for _, values := range u.Attributes {
		items++
		for _, v := range values {
			size += sizeOfItem + len(v)
		}
	}
	for _, o := range u.Origins {
		items += len(o.Touched)
		for _, r := range o.Rivals {
			size += sizeOfItem + len(r)
		}
	}
	return size + sizeOfItem*items
}
