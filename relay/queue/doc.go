// Package queue keeps accepted messages until they are delivered. It owns the
// spool directory and nothing else: it knows neither SMTP nor next hops.
//
// Life cycle: Open takes an exclusive lock on the directory and replays it;
// Add returns once the message is durable; Next hands out what is due; Settle
// and Postpone say what became of it; Close flushes and lets go.
//
// On disk there is a log of segments and, for bodies that are large or have
// been waiting for long, packs:
//
//	lock                      flock; one process at a time
//	log/SEQ-NONCE.seg         segments in order of use, SEQ decimal, NONCE hex
//	log/spare-N.seg           segments ready for use
//	packs/N.pack              bodies that do not live in the log
//	corrupt/                  what could not be read, set aside for a person
//
// A segment is written with zeroes once and then recycled, so that a commit is
// one write and one fdatasync that touch no metadata. Its name carries a fresh
// random nonce for each use and so does each of its records: bytes of an
// earlier use, or a record forged inside a message body, never replay.
//
// The log is freed strictly from its oldest end. So where a message is in the
// log, all that was ever recorded about it stands behind it, and a finished
// message cannot rise again. A message that blocks the oldest segment is
// written again at the head, its body moved to a pack.
//
// Commit is by leader: the first writer that finds nobody writing takes all
// that is pending, writes and syncs it, wakes the others and hands on. What
// nobody waits for (results of deliveries) rides the next commit, or has one
// of its own within Options.FlushDelay.
//
// A failed write or fsync is final: the kernel may have dropped the pages, so
// nothing is promised from then on, and a restart replays what is really there.
package queue
