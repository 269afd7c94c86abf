// The reference as a webhook of its own, k8s.io/pod-security-admission/cmd/webhook, as upstream starts it.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	"k8s.io/pod-security-admission/cmd/webhook/server"
)

func main() {
	os.Exit(cli.Run(server.NewServerCommand()))
}
