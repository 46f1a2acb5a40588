package webhook

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // p2 before 0.6 signs with HMAC-SHA1, and later versions may choose it
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strings"
)

// SignatureHeader is the header of p2, monte97 and Keycloak's planned event hooks.
const SignatureHeader = "X-Keycloak-Signature"

// Algorithm is a signature algorithm, by its name in the configuration.
type Algorithm string

// Algorithms that senders use.
const (
	HMACSHA256 Algorithm = "hmac-sha256"
	HMACSHA1   Algorithm = "hmac-sha1"
)

// maxSignatures bounds how many signatures of one header are looked at.
const maxSignatures = 8

// VerifyHMAC reports whether the value of SignatureHeader holds a signature of the
// raw body under one of the secrets. It reads bare hex (p2), sha256=<hex> (others;
// the prefix is not looked at, as monte97 writes sha256= before a SHA-1) and comma
// lists of these (a sender during rotation), hex in either case.
//
// An empty header is a failure, not an unsigned request: p2 sends an empty one when
// signing failed. So are an empty secret, no secret and an unknown algorithm.
// Comparison takes the same time for every wrong signature.
func VerifyHMAC(header string, body []byte, secrets []string, algorithm Algorithm) bool {
	var newHash func() hash.Hash
	switch algorithm {
	case HMACSHA256:
		newHash = sha256.New
	case HMACSHA1:
		newHash = sha1.New
	default:
		return false
	}
	signatures := parseSignatures(header)
	if len(signatures) == 0 {
		return false
	}
	valid := false
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		mac := hmac.New(newHash, []byte(secret))
		mac.Write(body)
		want := mac.Sum(nil)
		for _, got := range signatures {
			// No early end: which secret matched is nobody's business.
			if hmac.Equal(got, want) {
				valid = true
			}
		}
	}
	return valid
}

// Sign returns the signature that p2 sends: bare lower-case hex. It returns an
// empty string for an unknown algorithm.
func Sign(body []byte, secret string, algorithm Algorithm) string {
	var mac hash.Hash
	switch algorithm {
	case HMACSHA256:
		mac = hmac.New(sha256.New, []byte(secret))
	case HMACSHA1:
		mac = hmac.New(sha1.New, []byte(secret))
	default:
		return ""
	}
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

func parseSignatures(header string) [][]byte {
	var signatures [][]byte
	for item := range strings.SplitSeq(header, ",") {
		item = strings.TrimSpace(item)
		if _, value, ok := strings.Cut(item, "="); ok {
			item = value
		}
		signature, err := hex.DecodeString(item)
		if err != nil || len(signature) == 0 {
			continue
		}
		if signatures = append(signatures, signature); len(signatures) == maxSignatures {
			break
		}
	}
	return signatures
}
