package adapter_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/adapter"
)

func TestPlanStepByHand(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"user.role.add auditor, clerk":                  {"keytrail user role add 6a91 auditor", "keytrail user role add 6a91 clerk"},
		"user.client_role.add approver of app":          {"keytrail user role add 6a91 approver --client app"},
		"user.client_role.add it's mine of the app":     {`keytrail user role add 6a91 'it'\''s mine' --client 'the app'`},
		`user.role.add "head of sales", "a, b"`:         {"keytrail user role add 6a91 'head of sales'", "keytrail user role add 6a91 'a, b'"},
		"user.role.add 'x', `y":                         {`keytrail user role add 6a91 ''\''x'\'''`, "keytrail user role add 6a91 '`y'"},
		"user.organization.add 2f6e":                    {"keytrail user organization add 6a91 2f6e"},
		"user.enable":                                   {"keytrail user enable 6a91"},
		"user.teleport":                                 nil,
		"":                                              nil,
		"of a newer program with a step that it has, ,": nil,
	} {
		require.Equal(t, want, adapter.ParsePlanStep(name).ByHand("6a91"), name)
	}
	require.Equal(t, []string{"keytrail user enable '-x'"}, adapter.PlanStep{Command: "user.enable"}.ByHand("-x"))
}

// Any names can be read back.
func TestPlanStepRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.OneOf(rapid.StringMatching("[a-z ,\"'`of]{1,12}"), rapid.StringN(1, 20, -1))
		step := adapter.PlanStep{
			Command: "user.client_role.add",
			Names:   rapid.SliceOfN(names, 1, 4).Draw(t, "names"),
			Client:  rapid.OneOf(rapid.Just(""), names).Draw(t, "client"),
		}
		require.Equal(t, step, adapter.ParsePlanStep(step.String()))
	})
}
