package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/certwright/certwright/internal/durable"
	"github.com/certwright/certwright/storage"
)

// Keys as a CertMagic plugin gets them. Everything lies below one prefix, so
// that what CertMagic keeps in the same place is not listed. A component is
// written in lower-case letters, digits, "-" and ".", any other byte as "_" and
// two hexadecimal digits: plugins put keys into file names, which may not tell
// upper case from lower, and into URLs. One that gets longer than a file name
// can be is cut into several, each but the last with "_-" at its end. The last
// one of a key ends in "_v", so that a key can hold a value and be the prefix of
// others, and so that a folder is never taken for a value.
const (
	pluginPrefix = "certwright"
	pluginCut    = "_-"
	pluginValue  = "_v"
	pluginMost   = 200 // bytes in a component
)

// pluginKey is the plugin's key for the value at key.
func pluginKey(key string) string { return pluginDir(key) + pluginValue }

// pluginDir is the plugin's prefix of what is below prefix.
func pluginDir(prefix string) string {
	var b strings.Builder
	b.WriteString(pluginPrefix)
	if prefix == "" {
		return b.String()
	}
	for component := range strings.SplitSeq(prefix, "/") {
		text := escapePlugin(component)
		for len(text) > pluginMost {
			cut := pluginMost
			for text[cut-1] == '_' || text[cut-2] == '_' {
				cut--
			}
			b.WriteString("/" + text[:cut] + pluginCut)
			text = text[cut:]
		}
		b.WriteString("/" + text)
	}
	return b.String()
}

// fromPluginKey is the key of a value that a plugin listed. It is false for
// everything else.
func fromPluginKey(text string) (string, bool) {
	text, ok := strings.CutSuffix(strings.Trim(text, "/"), pluginValue)
	if !ok {
		return "", false
	}
	text, ok = strings.CutPrefix(text, pluginPrefix+"/")
	if !ok {
		return "", false
	}
	key, ok := unescapePlugin(strings.ReplaceAll(text, pluginCut+"/", ""))
	if !ok || pluginKey(key) != pluginPrefix+"/"+text+pluginValue {
		return "", false
	}
	return key, storage.ValidKey(key)
}

func escapePlugin(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		plain := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
		// A dot is nothing special unless it is doubled, or at an end.
		plain = plain || c == '.' && i > 0 && i < len(s)-1 && s[i-1] != '.'
		if i == 0 && durable.IsDevice(s) {
			plain = false
		}
		if plain {
			b.WriteByte(c)
		} else {
			b.WriteString("_" + hex.EncodeToString([]byte{c}))
		}
	}
	return b.String()
}

func unescapePlugin(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '_' {
			b.WriteByte(s[i])
			continue
		}
		if i+3 > len(s) {
			return "", false
		}
		c, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			return "", false
		}
		b.WriteByte(c[0])
		i += 2
	}
	return b.String(), true
}

// pluginLock is the plugin's name for a lock: one component, whatever the name.
func pluginLock(name string) string {
	text := pluginPrefix + "-" + escapePlugin(name)
	if len(text) > pluginMost {
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
