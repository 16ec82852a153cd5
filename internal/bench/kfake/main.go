// Command kfake serves franz-go's broker in memory on the address that it is given, until it is killed.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/twmb/franz-go/pkg/kfake"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kfake:", err)
		os.Exit(1)
	}
}

func serve(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("want one argument, HOST:PORT, got %q", arguments)
	}
	_, port, err := net.SplitHostPort(arguments[0])
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	if _, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(number)); err != nil {
		return err
	}
	select {}
}
