package main

import "fmt"

type configCommand struct {
	Check configCheck `cmd:"" help:"Check the configuration and report every fault at once."`
	Print configPrint `cmd:"" help:"Print the effective configuration with where each value comes from; secrets are redacted."`
}

type configCheck struct{}

func (*configCheck) Run(s *session) error {
	if _, err := s.config(); err != nil {
		return err
	}
	if s.json {
		return s.printJSON(map[string]string{"status": "ok"})
	}
	_, err := fmt.Fprintln(s.stdout, "The configuration is fine.")
	return err
}

type configPrint struct{}

func (*configPrint) Run(s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	if s.json {
		return cfg.PrintJSON(s.stdout)
	}
	return cfg.Print(s.stdout)
}
