package relay

import (
	"fmt"

	"github.com/emersion/go-smtp"
)

// answer names one reply of the table below.
type answer int

// Every reply that a client can get from us, by name.
const (
	ansNone answer = iota
	ansGreeting
	ansEhlo
	ansHelo
	ansBye
	ansOK
	ansVrfy
	ansTLSGo
	ansAuthOK
	ansMailOK
	ansRcptOK
	ansDataGo
	ansQueued
	ansHeld

	ansBusy
	ansBusySource
	ansDraining
	ansIdle
	ansSessionOver
	ansTooManyErrors
	ansTooManyCommands
	ansTooManyAuth
	ansReadFailed
	ansInternal
	ansTooManyRcpts
	ansQuota
	ansQueueFull
	ansQueueFailed
	ansAuthThrottled
	ansAuthBusy

	ansUnknown
	ansBadLine
	ansNotCRLF
	ansLineTooLong
	ansBadParams
	ansUnknownParam
	ansNotOffered
	ansBadHelo
	ansBadSender
	ansBadRcpt
	ansNeedUTF8
	ansHeloFirst
	ansMailFirst
	ansRcptFirst
	ansNestedMail
	ansTLSAlready
	ansTLSOff
	ansTLSPipelined
	ansTLSFirst
	ansAuthNeedsTLS
	ansAuthTwice
	ansAuthInMail
	ansAuthMech
	ansAuthBadData
	ansAuthTooLong
	ansAuthCancelled
	ansAuthFailed
	ansAuthFirst
	ansSenderNotYours
	ansRcptNotYours
	ansRelayDenied
	ansTooBig
	ansHeaderTooBig
	ansBadContent
	ansLoop
	answers // how many there are
)

// reply is what goes over the wire: code, enhanced code (RFC 3463; zero for a
// reply that has none: greeting, EHLO, 3xx) and text.
type reply struct {
	code int
	enh  smtp.EnhancedCode
	text string
}

// table holds every reply of ours. A text says what happened and no more: no
// cause from inside, nothing that the client sent.
var table = [answers]reply{
	ansGreeting: {220, smtp.EnhancedCode{}, "%s ESMTP synward"},
	ansEhlo:     {250, smtp.EnhancedCode{}, "%s"},
	ansHelo:     {250, smtp.EnhancedCode{}, "%s"},
	ansBye:      {221, smtp.EnhancedCode{2, 0, 0}, "bye"},
	ansOK:       {250, smtp.EnhancedCode{2, 0, 0}, "ok"},
	ansVrfy:     {252, smtp.EnhancedCode{2, 5, 0}, "send some mail, it will be tried"},
	ansTLSGo:    {220, smtp.EnhancedCode{2, 0, 0}, "ready to start TLS"},
	ansAuthOK:   {235, smtp.EnhancedCode{2, 7, 0}, "authentication succeeded"},
	ansMailOK:   {250, smtp.EnhancedCode{2, 1, 0}, "sender ok"},
	ansRcptOK:   {250, smtp.EnhancedCode{2, 1, 5}, "recipient ok"},
	ansDataGo:   {354, smtp.EnhancedCode{}, "end data with <CR><LF>.<CR><LF>"},
	ansQueued:   {250, smtp.EnhancedCode{2, 0, 0}, "queued as %s"},
	ansHeld:     {250, smtp.EnhancedCode{2, 0, 0}, "queued as %s and held for release: the quota is used up"},

	ansBusy:            {421, smtp.EnhancedCode{4, 3, 2}, "too many connections, try again later"},
	ansBusySource:      {421, smtp.EnhancedCode{4, 7, 0}, "too many connections from your address"},
	ansDraining:        {421, smtp.EnhancedCode{4, 3, 2}, "service is shutting down, try again later"},
	ansIdle:            {421, smtp.EnhancedCode{4, 4, 2}, "timeout, closing the connection"},
	ansSessionOver:     {421, smtp.EnhancedCode{4, 4, 2}, "session is too long, closing the connection"},
	ansTooManyErrors:   {421, smtp.EnhancedCode{4, 7, 0}, "too many errors, closing the connection"},
	ansTooManyCommands: {421, smtp.EnhancedCode{4, 7, 0}, "too many commands without mail, closing the connection"},
	ansTooManyAuth:     {421, smtp.EnhancedCode{4, 7, 0}, "too many failed logins, closing the connection"},
	ansReadFailed:      {421, smtp.EnhancedCode{4, 4, 2}, "message did not arrive whole, closing the connection"},
	ansInternal:        {421, smtp.EnhancedCode{4, 3, 0}, "internal error, try again later"},
	ansTooManyRcpts:    {452, smtp.EnhancedCode{4, 5, 3}, "too many recipients, send the rest in another message"},
	ansQuota:           {452, smtp.EnhancedCode{4, 7, 1}, "quota of %s is used up, try again after %s"},
	ansQueueFull:       {452, smtp.EnhancedCode{4, 3, 1}, "queue is full, try again later"},
	ansQueueFailed:     {451, smtp.EnhancedCode{4, 3, 0}, "message was not stored, try again later"},
	ansAuthThrottled:   {454, smtp.EnhancedCode{4, 7, 0}, "too many failed logins, try again later"},
	ansAuthBusy:        {454, smtp.EnhancedCode{4, 7, 0}, "authentication is busy, try again later"},

	ansUnknown:        {500, smtp.EnhancedCode{5, 5, 2}, "command not recognized"},
	ansBadLine:        {500, smtp.EnhancedCode{5, 5, 2}, "line holds a character that is not allowed"},
	ansNotCRLF:        {500, smtp.EnhancedCode{5, 5, 2}, "lines end in <CR><LF>, closing the connection"},
	ansLineTooLong:    {500, smtp.EnhancedCode{5, 5, 2}, "line is too long"},
	ansBadParams:      {501, smtp.EnhancedCode{5, 5, 4}, "bad parameters"},
	ansUnknownParam:   {555, smtp.EnhancedCode{5, 5, 4}, "parameter is not supported"},
	ansNotOffered:     {502, smtp.EnhancedCode{5, 5, 1}, "command is not offered"},
	ansBadHelo:        {501, smtp.EnhancedCode{5, 5, 4}, "give your host name"},
	ansBadSender:      {501, smtp.EnhancedCode{5, 1, 7}, "bad sender address"},
	ansBadRcpt:        {501, smtp.EnhancedCode{5, 1, 3}, "bad recipient address"},
	ansNeedUTF8:       {553, smtp.EnhancedCode{5, 6, 7}, "address needs SMTPUTF8"},
	ansHeloFirst:      {503, smtp.EnhancedCode{5, 5, 1}, "say EHLO first"},
	ansMailFirst:      {503, smtp.EnhancedCode{5, 5, 1}, "need MAIL first"},
	ansRcptFirst:      {503, smtp.EnhancedCode{5, 5, 1}, "need an accepted recipient first"},
	ansNestedMail:     {503, smtp.EnhancedCode{5, 5, 1}, "sender is given already"},
	ansTLSAlready:     {503, smtp.EnhancedCode{5, 5, 1}, "TLS is on already"},
	ansTLSOff:         {454, smtp.EnhancedCode{4, 7, 0}, "TLS is not available"},
	ansTLSPipelined:   {421, smtp.EnhancedCode{4, 7, 0}, "nothing may follow STARTTLS, closing the connection"},
	ansTLSFirst:       {530, smtp.EnhancedCode{5, 7, 0}, "must issue a STARTTLS command first"},
	ansAuthNeedsTLS:   {538, smtp.EnhancedCode{5, 7, 11}, "encryption required for authentication"},
	ansAuthTwice:      {503, smtp.EnhancedCode{5, 5, 1}, "already authenticated"},
	ansAuthInMail:     {503, smtp.EnhancedCode{5, 5, 1}, "AUTH is not permitted during a mail transaction"},
	ansAuthMech:       {504, smtp.EnhancedCode{5, 5, 4}, "authentication mechanism is not supported"},
	ansAuthBadData:    {501, smtp.EnhancedCode{5, 5, 2}, "bad authentication data"},
	ansAuthTooLong:    {500, smtp.EnhancedCode{5, 5, 6}, "authentication exchange line is too long"},
	ansAuthCancelled:  {501, smtp.EnhancedCode{5, 7, 0}, "authentication cancelled"},
	ansAuthFailed:     {535, smtp.EnhancedCode{5, 7, 8}, "authentication failed"},
	ansAuthFirst:      {530, smtp.EnhancedCode{5, 7, 0}, "authentication required"},
	ansSenderNotYours: {550, smtp.EnhancedCode{5, 7, 1}, "sender is not allowed for this user"},
	ansRcptNotYours:   {550, smtp.EnhancedCode{5, 7, 1}, "recipient is not allowed for this user"},
	ansRelayDenied:    {550, smtp.EnhancedCode{5, 7, 1}, "relaying denied"},
	ansTooBig:         {552, smtp.EnhancedCode{5, 3, 4}, "message is too big"},
	ansHeaderTooBig:   {552, smtp.EnhancedCode{5, 3, 4}, "message header is too big"},
	ansBadContent:     {554, smtp.EnhancedCode{5, 6, 0}, "message has a bare <CR>, a bare <LF> or a NUL"},
	ansLoop:           {554, smtp.EnhancedCode{5, 4, 6}, "too many hops, mail is looping"},
}

// reply returns the answer with its text filled in.
func (a answer) reply(args ...any) reply {
	r := table[a]
	if len(args) > 0 {
		r.text = fmt.Sprintf(r.text, args...)
	}
	return r
}

// String is the reply as a log shows it.
func (r reply) String() string {
	if r.enh == (smtp.EnhancedCode{}) {
		return fmt.Sprintf("%d %s", r.code, r.text)
	}
	return fmt.Sprintf("%d %d.%d.%d %s", r.code, r.enh[0], r.enh[1], r.enh[2], r.text)
}

// wire appends the reply's lines to b; more are further lines of a multi-line
// reply, after the text.
func (r reply) wire(b []byte, more ...string) []byte {
	for i, n := 0, len(more); i < n; i++ {
		b = fmt.Appendf(b, "%d-%s\r\n", r.code, r.text)
		r.text = more[i]
	}
	b = append(b, r.String()...)
	return append(b, '\r', '\n')
}

// said is what go-smtp itself may say (it never does where the guard has looked
// at the line before, but a table with holes is a leak), in our words.
var said = map[verb]map[int]answer{
	"":       {220: ansGreeting},
	verbEhlo: {250: ansEhlo},
	verbHelo: {250: ansHelo},
	verbMail: {250: ansMailOK, 500: ansUnknownParam, 501: ansBadParams, 502: ansHeloFirst, 504: ansUnknownParam, 552: ansTooBig},
	verbRcpt: {250: ansRcptOK, 500: ansUnknownParam, 501: ansBadParams, 502: ansMailFirst, 504: ansUnknownParam},
	verbData: {354: ansDataGo, 501: ansBadParams, 502: ansRcptFirst},
	verbRset: {250: ansOK},
	verbNoop: {250: ansOK},
	verbVrfy: {252: ansVrfy},
	verbQuit: {221: ansBye},
	verbAuth: {235: ansAuthOK, 454: ansAuthBadData, 501: ansAuthCancelled, 502: ansBadParams, 503: ansAuthTwice, 504: ansAuthMech},
}
