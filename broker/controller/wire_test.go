package controller

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
)

// filled returns a value of a type in which nothing is zero, so that whatever is lost on the way is seen.
func filled(t *testing.T, typ reflect.Type, depth int) reflect.Value {
	v := reflect.New(typ).Elem()
	switch typ.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(9)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.String:
		v.SetString("text")
	case reflect.Pointer:
		v.Set(reflect.New(typ.Elem()))
		v.Elem().Set(filled(t, typ.Elem(), depth+1))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(typ, 2, 2))
		for i := range 2 {
			v.Index(i).Set(filled(t, typ.Elem(), depth+1))
		}
	case reflect.Array:
		for i := range typ.Len() {
			v.Index(i).Set(filled(t, typ.Elem(), depth+1))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(typ))
		v.SetMapIndex(filled(t, typ.Key(), depth+1), filled(t, typ.Elem(), depth+1))
	case reflect.Struct:
		for i := range typ.NumField() {
			if !typ.Field(i).IsExported() {
				t.Fatalf("%s.%s is not exported and would be lost", typ, typ.Field(i).Name)
			}
			v.Field(i).Set(filled(t, typ.Field(i).Type, depth+1))
		}
	default:
		t.Fatalf("a %s cannot travel", typ)
	}
	return v
}

// A request decided by another node, and its reply, are those of the one who asked, to the last field.
func TestRequestsAndRepliesTravelWhole(t *testing.T) {
	for _, example := range carried() {
		for _, value := range []any{example, filled(t, reflect.TypeOf(example), 0).Interface()} {
			var got any
			var err error
			if request, ok := value.(Request); ok {
				b, encodeErr := EncodeRequest(request)
				if encodeErr != nil {
					t.Fatal(encodeErr)
				}
				got, err = DecodeRequest(b)
			} else {
				b, encodeErr := EncodeAnswer(value.(Reply), nil, 12)
				if encodeErr != nil {
					t.Fatal(encodeErr)
				}
				var index broker.Index
				if got, index, _, err = DecodeAnswer(b); index != 12 {
					t.Errorf("%T: index %d", value, index)
				}
			}
			if err != nil || !reflect.DeepEqual(got, value) {
				t.Errorf("%T became %+v (%v), was %+v", value, got, err, value)
			}
		}
	}
}

func TestRefusalsTravelWithCodeAndSentence(t *testing.T) {
	b, err := EncodeAnswer(nil, broker.Errorf(broker.TopicAlreadyExists, "there is a topic x"), 3)
	if err != nil {
		t.Fatal(err)
	}
	_, index, refusal, err := DecodeAnswer(b)
	if err != nil || index != 3 || !errors.Is(refusal, broker.TopicAlreadyExists) || refusal.Error() != "there is a topic x" {
		t.Errorf("index %d, refusal %v, error %v", index, refusal, err)
	}
}

// What a newer program asks for and this one does not know must not be decided without it.
func TestUnknownFieldsAndKindsAreRefused(t *testing.T) {
	for _, text := range []string{
		`{"kind":"DeleteTopic","body":{"Nonsense":1}}`, `{"kind":"Nonsense","body":{}}`, `{"kind":"TopicCreated","body":{}}`, `{}`, ``,
	} {
		if r, err := DecodeRequest([]byte(text)); err == nil {
			t.Errorf("%q was taken for %T", text, r)
		}
	}
}

// Every type with a request or reply method is in the table, or other nodes could not ask for it.
func TestEveryRequestAndReplyIsCarried(t *testing.T) {
	known := map[string]bool{}
	for _, example := range carried() {
		known[reflect.TypeOf(example).Name()] = true
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil || f.Name.Name != "request" && f.Name.Name != "reply" || len(f.Type.Params.List) > 0 || f.Type.Results != nil {
				continue
			}
			name, ok := f.Recv.List[0].Type.(*ast.Ident)
			if found++; ok && !known[name.Name] && !strings.HasSuffix(name.Name, "walker") {
				t.Errorf("%s is not in carried()", name.Name)
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d requests and replies were found", found)
	}
}
