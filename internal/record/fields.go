package record

import "bytes"

// Fields reads the members of a compact JSON object one by one, without
// allocation and without a type to fit them into:
//
//	f := record.NewFields(body)
//	for f.Next() {
//		switch string(f.Name) {
//		case "id":
//			...
//		}
//	}
//	if !f.Whole() {
//		// read body with encoding/json
//	}
//
// It is for a body that [Open] returned: it finds where values end and does not
// check all of JSON's grammar. What it does not expect, such as white space or
// a name with an escape in it, ends the reading, and Whole is false then.
// A name that comes twice is returned twice.
type Fields struct {
	Name  []byte // as between its quotes; a part of the body
	Value []byte // the raw JSON value; a part of the body

	list list
}

// NewFields returns the members of an object.
func NewFields(body []byte) Fields {
	return Fields{list: newList(body, '{', '}')}
}

// Next moves to the next member and reports whether there is one.
func (f *Fields) Next() bool {
	if !f.list.more() {
		return false
	}
	name, rest, ok := cutValue(f.list.rest)
	if !ok || name[0] != '"' || bytes.IndexByte(name, '\\') >= 0 || !plainText(name) || len(rest) == 0 || rest[0] != ':' {
		return f.list.fail()
	}
	value, rest, ok := cutValue(rest[1:])
	if !ok {
		return f.list.fail()
	}
	f.Name, f.Value = name[1:len(name)-1], value
	return f.list.advance(rest)
}

// Whole reports whether all members were read and nothing was odd.
func (f *Fields) Whole() bool { return f.list.state == ended }

// Elements reads the elements of a compact JSON array as [Fields] does the
// members of an object.
type Elements struct {
	Value []byte // the raw JSON value; a part of the array

	list list
}

// NewElements returns the elements of an array.
func NewElements(array []byte) Elements {
	return Elements{list: newList(array, '[', ']')}
}

// Next moves to the next element and reports whether there is one.
func (e *Elements) Next() bool {
	if !e.list.more() {
		return false
	}
	value, rest, ok := cutValue(e.list.rest)
	if !ok {
		return e.list.fail()
	}
	e.Value = value
	return e.list.advance(rest)
}

// Whole reports whether all elements were read and nothing was odd.
func (e *Elements) Whole() bool { return e.list.state == ended }

type listState uint8

const (
	reading listState = iota
	last              // the value that was read is the last one
	ended
	odd
)

// list is what remains of an object or an array: values with commas between.
type list struct {
	rest   []byte
	state  listState
	closes byte
}

func newList(text []byte, opens, closes byte) list {
	end := len(text) - 1
	if end < 1 || text[0] != opens || text[end] != closes {
		return list{state: odd}
	}
	if end == 1 {
		return list{state: ended}
	}
	return list{rest: text[1:], closes: closes}
}

// more reports whether a value is to be read.
func (l *list) more() bool {
	if l.state == last {
		l.state = ended
	}
	return l.state == reading
}

func (l *list) fail() bool {
	l.state = odd
	return false
}

// advance goes over what follows a value.
func (l *list) advance(rest []byte) bool {
	switch {
	case len(rest) > 1 && rest[0] == ',':
		l.rest = rest[1:]
	case len(rest) == 1 && rest[0] == l.closes:
		l.state = last
	default:
		return l.fail()
	}
	return true
}

// cutValue cuts the value at the beginning of text off.
func cutValue(text []byte) (value, rest []byte, ok bool) {
	end := 0
	if len(text) > 0 {
		switch text[0] {
		case '"':
			end = stringEnd(text)
		case '{', '[':
			end = nestedEnd(text)
		default:
			end = bareEnd(text)
		}
	}
	return text[:end:end], text[end:], end > 0
}

// stringEnd returns the length of the string at the beginning of text, with its
// quotes, or 0 when it does not end.
func stringEnd(text []byte) int {
	for i := 1; ; i++ {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			return 0
		}
		i += n
		escapes := 0
		for text[i-1-escapes] == '\\' { // text[0] is a quote
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

// nestedEnd returns the length of the object or array at the beginning of text,
// or 0 when it does not end or holds white space.
func nestedEnd(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '"':
			n := stringEnd(text[i:])
			if n == 0 {
				return 0
			}
			i += n - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		default:
			if c <= ' ' {
				return 0
			}
		}
	}
	return 0
}

// bareEnd returns the length of the number, true, false or null at the beginning
// of text, or 0 when it is none.
func bareEnd(text []byte) int {
	n := 0
	for n < len(text) && text[n] != ',' && text[n] != '}' && text[n] != ']' {
		n++
	}
	switch string(text[:n]) {
	case "true", "false", "null":
		return n
	}
	for _, c := range text[:n] {
		if (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E' {
			return 0
		}
	}
	return n
}
