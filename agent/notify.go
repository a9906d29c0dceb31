package agent

import (
	"fmt"
	"net"
	"os"
)

// Notify tells the service manager how it stands ("READY=1", "STOPPING=1",
// "RELOADING=1"; sd_notify(3)). Without a NOTIFY_SOCKET it does nothing.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.Dial("unixgram", path) // a leading @ is the abstract namespace to Go too
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}
