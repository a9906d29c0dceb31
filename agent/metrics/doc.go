// Package metrics serves what the agent knows as Prometheus metrics. It reads
// a status at every scrape and keeps nothing. No address of anybody is ever a
// label: what strangers can make up must not become series.
package metrics
