package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker; a build without it takes what Go knows.
var version string

type versionCommand struct{}

func (*versionCommand) Run(s *session) error {
	v := struct {
		Version string `json:"version"`
		Go      string `json:"go"`
		OS      string `json:"os"`
		Arch    string `json:"arch"`
	}{programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
	if s.json {
		return s.printJSON(v)
	}
	_, err := fmt.Fprintf(s.stdout, "keytrail %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
	return err
}

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
