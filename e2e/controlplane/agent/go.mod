module rampart.dev/e2e/agent

go 1.26.0
