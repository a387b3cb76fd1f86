package env

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// checkout asks git for the commit of the checkout around dir, and whether
// tracked files differ from it. Both are zero where dir is not in a checkout of
// module, or git does not answer.
func checkout(dir, module string) (commit string, dirty bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	git := func(args ...string) (string, bool) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...).Output()
		return strings.TrimSpace(string(out)), err == nil
	}
	top, ok := git("rev-parse", "--show-toplevel")
	if !ok {
		return "", false
	}
	mod, err := os.ReadFile(filepath.Join(top, "go.mod"))
	if err != nil || !strings.HasPrefix(string(mod), "module "+module+"\n") {
		return "", false
	}
	if commit, ok = git("rev-parse", "HEAD"); !ok {
		return "", false
	}
	changes, ok := git("status", "--porcelain", "--untracked-files=no")
	return commit, ok && changes != ""
}
