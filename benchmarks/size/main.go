// Command size weighs programs that serve one name over HTTPS, each built as it
// would be shipped: on certwright, on CertMagic, on autocert, and, as the limit
// that none of them can reach, on net/http with a certificate from a file.
//
// It prints a line "row size COLUMN VALUE MB" for each; a MB is a million bytes.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
)

// columns are the programs, by the folder that each is in.
var columns = [...]string{"certwright", "certmagic", "autocert", "limit"}

const programs = "github.com/certwright/certwright/benchmarks/size/"

func main() {
	log.SetFlags(0)
	sizes, err := measure(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, column := range columns {
		fmt.Println(row(column, sizes[column]))
	}
}

// measure builds the programs and returns how many bytes each has, by column.
func measure(ctx context.Context) (map[string]int64, error) {
	dir, err := os.MkdirTemp("", "size")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the programs: %w", err)
	}
	defer os.RemoveAll(dir)
	sizes := map[string]int64{}
	for _, column := range columns {
		path := filepath.Join(dir, column)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, programs+column)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("building %q: %w", column, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("weighing %q: %w", column, err)
		}
		sizes[column] = info.Size()
	}
	return sizes, nil
}

// row returns the line for one program.
func row(column string, bytes int64) string {
	return fmt.Sprintf("row size %s %.3f MB", column, float64(bytes)/1e6)
}
