// Package clients has the mail clients of real people hand mail to the relay:
// swaks, curl, msmtp, Python's smtplib and Postfix, as Debian packages them; and
// the relay deliver to a real Postfix.
package clients
