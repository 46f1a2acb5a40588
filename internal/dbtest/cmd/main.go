// Command cmd runs a private PostgreSQL cluster for a whole test run: it writes
// the superuser's URL to a file once the server answers, and removes the
// cluster when it is told to end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/keytrail/keytrail/internal/dbtest"
)

func main() {
	urlFile := flag.String("url-file", "", "file that gets the cluster's URL when it is ready")
	durable := flag.Bool("durable", false, "keep fsync on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *urlFile, *durable)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, urlFile string, durable bool) error {
	if urlFile == "" {
		return errors.New("-url-file is missing")
	}
	cluster, err := dbtest.Start(ctx, dbtest.Options{Durable: durable})
	if err != nil {
		return err
	}
	// Whoever polls for the file must never see half of it.
	unfinished := urlFile + ".new"
	err = os.WriteFile(unfinished, []byte(cluster.URL()+"\n"), 0o600)
	if err == nil {
		err = os.Rename(unfinished, urlFile)
	}
	if err == nil {
		<-ctx.Done()
	}
	return errors.Join(err, cluster.Stop())
}
