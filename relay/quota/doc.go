// Package quota counts the messages and recipients that each user and each
// relaying source hands in, and says when one has used up what he may.
//
// Time is cut into slots of five minutes. What counts for an hour is the slot
// of now and the twelve before it, for a day the 288 before it: so in no hour
// and in no day does more pass than the limit, and never is one made to wait
// more than five minutes longer than that takes. What is older than the hour is
// kept in slots of an hour.
//
// The counts are in one file of lines, each with a checksum, that is only ever
// appended to and now and then written anew. A count is in the file before the
// caller goes on, so it outlives the process; it is on the disk within a
// second, so a power cut may forget that much. The package knows neither SMTP
// nor accounts: a key is any text.
package quota
