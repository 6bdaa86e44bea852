package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/certwright/certwright/storage"
)

const (
	// maxLists is how often the list of a folder is begun anew.
	maxLists = 100

	// maxLooks is how many lists in a row must not be understood: what one names
	// may be gone before it is looked at.
	maxLooks = 3
)

// List implements storage.Storage.
func (s *Storage) List(ctx context.Context, prefix string) ([]string, error) {
	var err error
	if prefix != "" {
		err = check(ctx, prefix)
	}
	var found []string
	if err == nil {
		found, err = listAll(ctx, s.plugin, pluginDir(prefix), isValue)
	}
	if err != nil {
		return nil, fmt.Errorf("listing keys below %q: %w", prefix, err)
	}
	keys := make([]string, 0, len(found))
	for _, text := range found {
		// A folder, or a file that a writer is at work on, is no key.
		if key, ok := fromPluginKey(text); ok && (prefix == "" || strings.HasPrefix(key, prefix+"/")) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// Raw reads what CertMagic itself keeps in a plugin, by the plugin's own keys. It
// is safe for concurrent use when the plugin is.
type Raw struct{ plugin Plugin }

// Raw returns a reader of what CertMagic keeps in the plugin of s, for
// adopt.CertMagicOn.
func (s *Storage) Raw() Raw { return Raw{s.plugin} }

// Load returns the value at the plugin's key. When there is none the error
// satisfies errors.Is(err, fs.ErrNotExist).
func (r Raw) Load(ctx context.Context, key string) ([]byte, error) {
	value, err := loadOnce(ctx, r.plugin, key)
	if errors.Is(err, errEmptyValue) {
		return []byte{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("loading key %q: %w", key, err)
	}
	return value, nil
}

// List returns the plugin's keys below prefix, in no order. Folders may be among
// them.
func (r Raw) List(ctx context.Context, prefix string) ([]string, error) {
	keys, err := listAll(ctx, r.plugin, strings.Trim(prefix, "/"), func(key string) bool {
		return slices.Contains([]string{".crt", ".key", ".json"}, path.Ext(key))
	})
	if err != nil {
		return nil, fmt.Errorf("listing keys below %q: %w", prefix, err)
	}
	return keys, nil
}

// listAll returns what a plugin has below dir. It goes into each entry that is no
// value, unless the plugin has listed what is below that already.
func listAll(ctx context.Context, p Plugin, dir string, value func(key string) bool) ([]string, error) {
	var out []string
	asked := map[string]bool{dir: true}
	for todo := []string{dir}; len(todo) > 0; todo = todo[1:] {
		keys, err := listFolder(ctx, p, todo[0])
		if err != nil {
			return nil, err
		}
		parents := map[string]bool{} // of what was listed
		for _, key := range keys {
			for above := parentOf(key); above != "" && !parents[above]; above = parentOf(above) {
				parents[above] = true
			}
		}
		for _, key := range keys {
			if !parents[key] && !asked[key] && !value(key) {
				todo = append(todo, key)
				asked[key] = true
			}
		}
		out = append(out, keys...)
	}
	return out, nil
}

// listFolder is a plugin's list of dir, as whole keys below dir. One that says
// "not found" found nothing, or was disturbed by a value that went away
// meanwhile; then it is asked again.
func listFolder(ctx context.Context, p Plugin, dir string) ([]string, error) {
	for n := 1; ; n++ {
		listed, err := p.List(ctx, dir, false)
		switch {
		case ctx.Err() != nil:
			return nil, ended(ctx)
		case err == nil:
			keys, err := wholeKeys(ctx, p, dir, listed)
			if err == nil || n == maxLooks {
				return keys, err
			}
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case len(listed) == 0 && !p.Exists(ctx, dir):
			return nil, nil
		case n == maxLists:
			return nil, fmt.Errorf("the plugin found no end: %w", err)
		}
	}
}

// wholeKeys makes whole keys of what a plugin listed below dir, and leaves out
// what is not below it: some plugins take a prefix for a part of a string. Names
// that could be relative to dir are taken for that when the plugin has one of
// them there; otherwise they are an error.
func wholeKeys(ctx context.Context, p Plugin, dir string, listed []string) ([]string, error) {
	var keys, relative []string
	top, _, _ := strings.Cut(dir, "/")
	for _, text := range listed {
		slashed := "/" + strings.Trim(text, "/")
		_, below, found := strings.Cut(slashed, "/"+dir+"/")
		switch {
		case found && below != "":
			keys = append(keys, dir+"/"+below)
		case dir == "":
			keys = append(keys, slashed[1:])
		case strings.HasPrefix(slashed, "/"+dir), strings.Contains(slashed+"/", "/"+top+"/"), slashed == "/":
			// dir itself, or a whole key elsewhere
		default:
			relative = append(relative, dir+slashed)
		}
	}
	if len(relative) == 0 {
		return keys, nil
	}
	there := func(key string) bool { return p.Exists(ctx, key) }
	if !slices.ContainsFunc(relative, there) && !leadsOn(ctx, p, relative[0]) {
		return nil, fmt.Errorf("the plugin lists %q below %q, which is neither a key nor a name there", listed[0], dir)
	}
	return append(keys, relative...), nil
}

// leadsOn reports whether something is listed below a folder: it need not exist
// for a plugin.
func leadsOn(ctx context.Context, p Plugin, dir string) bool {
	listed, err := p.List(ctx, dir, false)
	return err == nil && len(listed) > 0
}

func isValue(key string) bool { return strings.HasSuffix(key, pluginValue) }

func parentOf(key string) string {
	if i := strings.LastIndexByte(key, '/'); i >= 0 {
		return key[:i]
	}
	return ""
}

var _ interface {
	storage.Storage
	storage.Locker
} = (*Storage)(nil)
