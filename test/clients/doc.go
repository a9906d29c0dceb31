// Package clients has the mail clients of real people hand mail to the relay:
// swaks, curl, msmtp and Python's smtplib, as Debian packages them.
package clients
