package control

import (
	"errors"
	"fmt"
	"net/http"
)

// Error is a refused or failed request. Message is one line for a person.
type Error struct {
	Status  int    `json:"-"` // HTTP status, 400 to 599
	Message string `json:"error"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error. A %w in the format is not kept as a cause: what
// crosses the socket is text.
func Errorf(status int, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Errorf(format, args...).Error()}
}

// StatusOf is the HTTP status that an error is sent with: its own for an
// Error, 500 for any other.
func StatusOf(err error) int {
	var e *Error
	if errors.As(err, &e) && e.Status >= 400 {
		return e.Status
	}
	return http.StatusInternalServerError
}
