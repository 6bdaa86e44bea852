package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/certwright/certwright/internal/keypath"
	"github.com/certwright/certwright/storage"
)

// Keys as a CertMagic plugin gets them. Everything lies below one prefix, so
// that what CertMagic keeps in the same place is not listed. Components are those
// of package keypath: plugins put keys into file names, which may not tell upper
// case from lower, and into URLs. The last one of a key ends in "_v", so that a
// key can hold a value and be the prefix of others, and so that a folder is never
// taken for a value.
const (
	pluginPrefix = "certwright"
	pluginValue  = "_v"
)

var pluginNames = keypath.Scheme{Mark: '_', Lead: "_-"}

// pluginKey is the plugin's key for the value at key.
func pluginKey(key string) string { return pluginDir(key) + pluginValue }

// pluginDir is the plugin's prefix of what is below prefix, and of what is below
// longer components that begin alike.
func pluginDir(prefix string) string {
	if prefix == "" {
		return pluginPrefix
	}
	return pluginPrefix + "/" + strings.Join(pluginNames.Elements(prefix), "/")
}

// fromPluginKey is the key of a value that a plugin listed. It is false for
// everything else.
func fromPluginKey(text string) (string, bool) {
	text = strings.Trim(text, "/")
	key := pluginNames.Key(strings.TrimSuffix(strings.TrimPrefix(text, pluginPrefix+"/"), pluginValue))
	return key, storage.ValidKey(key) && pluginKey(key) == text
}

// pluginLock is the plugin's name for a lock: one component, whatever the name.
func pluginLock(name string) string {
	text := pluginPrefix + "-" + pluginNames.Escape(name)
	if len(text) > 200 {
		sum := sha256.Sum256([]byte(name))
		text = pluginPrefix + "-_" + hex.EncodeToString(sum[:])
	}
	return text
}

// A value that is empty, or begins with the mark, is stored behind the mark:
// some plugins refuse an empty value, and others return one while a value is
// being replaced.
const pluginMark = 0

func markValue(value []byte) []byte {
	if len(value) > 0 && value[0] != pluginMark {
		return value
	}
	return append([]byte{pluginMark}, value...)
}

func unmarkValue(value []byte) []byte {
	if len(value) > 0 && value[0] == pluginMark {
		return value[1:]
	}
	return value
}
