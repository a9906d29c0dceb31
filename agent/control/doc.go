// Package control is the way to a running agent: HTTP with JSON over a unix
// socket, under /v1/. It owns the socket, who may use it (SO_PEERCRED), the
// form of errors and streams, the types that travel, and the client. What the
// requests do is the agent's: it hands in the routes.
//
// An answer is one JSON document, or JSON lines where the route streams. An
// error is {"error": "one line"} with a status: 400 the request is wrong, 403
// the caller may not, 404 no such thing, 409 it conflicts with what is there,
// 500 it failed and nothing was changed, 503 the part that should answer is
// not running.
package control
