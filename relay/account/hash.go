package account

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// The cost of a hash: OWASP's first choice for argon2id (19 MiB, two passes,
// one lane), about 20 to 50 ms. RFC 9106's own figures ask for 64 MiB or more,
// which fifty clients at once would turn into a denial of service.
const (
	costMemory = 19 * 1024 // KiB
	costTime   = 2
	costLanes  = 1
	saltBytes  = 16
	keyBytes   = 32
)

// maxPassword bounds what is hashed, in bytes.
const maxPassword = 1024

// maxBcryptCost bounds what one login may cost: 14 is about a second.
const maxBcryptCost = 14

// phc is a parsed hash: $argon2id$v=19$m=…,t=…,p=…$salt$key.
type phc struct {
	id           bool // argon2id, else argon2i
	memory, time uint32
	lanes        uint8
	salt, key    []byte
}

// Hash returns the PHC string to keep for password. It fails on an empty
// password and on one of more than 1024 bytes.
func Hash(password string) (string, error) {
	switch {
	case password == "":
		return "", errors.New("password is empty")
	case len(password) > maxPassword:
		return "", fmt.Errorf("password has %d bytes: use at most %d", len(password), maxPassword)
	}
	salt := make([]byte, saltBytes)
	rand.Read(salt)
	key := argon2.IDKey([]byte(password), salt, costTime, costMemory, costLanes, keyBytes)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		costMemory, costTime, costLanes, b64.EncodeToString(salt), b64.EncodeToString(key)), nil
}

// Verify says whether password is the one that hash was made of, in a time
// that does not depend on how much of it is right. A hash that cannot be read
// matches nothing.
func Verify(hash, password string) bool {
	if len(password) > maxPassword {
		return false
	}
	if isBcrypt(hash) {
		return validateHash(hash) == nil && bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
	}
	h, err := parsePHC(hash)
	if err != nil {
		return false
	}
	derive := argon2.Key
	if h.id {
		derive = argon2.IDKey
	}
	key := derive([]byte(password), h.salt, h.time, h.memory, h.lanes, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(key, h.key) == 1
}

// Waste takes the time of one Verify and answers nothing: what a login under
// an unknown name costs, so that the time does not tell which names exist.
func Waste(password string) {
	var salt [saltBytes]byte
	argon2.IDKey([]byte(password[:min(len(password), maxPassword)]), salt[:], costTime, costMemory, costLanes, keyBytes)
}

// isBcrypt says whether a hash is meant for bcrypt, as htpasswd -B makes it.
func isBcrypt(hash string) bool {
	return len(hash) > 4 && hash[0] == '$' && hash[1] == '2' && strings.IndexByte("aby", hash[2]) >= 0 && hash[3] == '$'
}

// validateHash says why a hash cannot be used.
func validateHash(hash string) error {
	if !isBcrypt(hash) {
		_, err := parsePHC(hash)
		return err
	}
	cost, err := bcrypt.Cost([]byte(hash))
	switch {
	case err != nil || len(hash) != 60 || strings.Trim(hash[7:], bcryptDigits) != "":
		return errors.New("bcrypt hash cannot be read: set the password anew")
	case cost > maxBcryptCost:
		return fmt.Errorf("bcrypt cost %d is above %d: set the password anew", cost, maxBcryptCost)
	}
	return nil
}

const bcryptDigits = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// parsePHC reads a hash and bounds its cost, so that a store gone bad cannot
// make one login take the machine's memory.
func parsePHC(s string) (phc, error) {
	var h phc
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" && parts[1] != "argon2i" {
		return h, errors.New("neither argon2 nor bcrypt: set the password anew")
	}
	h.id = parts[1] == "argon2id"
	if parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return h, fmt.Errorf("argon2 version %q is not known: set the password anew", parts[2])
	}
	n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.lanes)
	if err != nil || n != 3 || parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", h.memory, h.time, h.lanes) {
		return h, fmt.Errorf("argon2 cost %q cannot be read: set the password anew", parts[3])
	}
	if h.lanes < 1 || h.lanes > 16 || h.time < 1 || h.time > 16 || h.memory < 8*uint32(h.lanes) || h.memory > 1<<20 {
		return h, fmt.Errorf("argon2 cost %q is out of bounds: set the password anew", parts[3])
	}
	b64 := base64.RawStdEncoding.Strict()
	if h.salt, err = b64.DecodeString(parts[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return h, errors.New("argon2 salt cannot be read: set the password anew")
	}
	if h.key, err = b64.DecodeString(parts[5]); err != nil || len(h.key) < 16 || len(h.key) > 64 {
		return h, errors.New("argon2 key cannot be read: set the password anew")
	}
	return h, nil
}
