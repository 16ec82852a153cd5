package plugins

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ConfigBytesMax bounds the configuration of a stage.
const ConfigBytesMax = 64 << 10

// CheckConfig says what is wrong with a configuration, or nil. It checks what the manifest's schema says about type,
// required, properties, additionalProperties: false, items and enum; every other keyword of JSON Schema is left to the
// plugin, which refuses in millrace_configure.
func (m *Manifest) CheckConfig(config []byte) error {
	if len(config) > ConfigBytesMax {
		return fmt.Errorf("%d bytes; %d are allowed", len(config), ConfigBytesMax)
	}
	if m.ConfigSchema == nil {
		return errors.New("the plugin takes no configuration")
	}
	var schema, value any
	if err := decodeJSON(m.ConfigSchema, &schema); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	if err := decodeJSON(config, &value); err != nil {
		return err
	}
	return matches("config", schema, value)
}

// decodeJSON reads exactly one value, numbers as written.
func decodeJSON(b []byte, to *any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(to); err != nil {
		return err
	}
	if d.More() {
		return errors.New("more than one JSON value")
	}
	return nil
}

// schemaTypes are the types that JSON Schema knows.
var schemaTypes = [...]string{"object", "array", "string", "number", "integer", "boolean", "null"}

// checkSchema refuses a schema whose checked keywords have the wrong shape.
func checkSchema(b []byte) error {
	var schema any
	if err := decodeJSON(b, &schema); err != nil {
		return err
	}
	object := schema.(map[string]any)
	if t, ok := object["type"]; ok && t != "object" {
		return fmt.Errorf("type is %v; a configuration is an object", t)
	}
	return checkSchemaAt("config", object)
}

func checkSchemaAt(path string, schema map[string]any) error {
	if t, ok := schema["type"]; ok {
		if name, ok := t.(string); !ok || !slices.Contains(schemaTypes[:], name) {
			return fmt.Errorf("%s: type %v is none of %s", path, t, strings.Join(schemaTypes[:], ", "))
		}
	}
	if r, ok := schema["required"]; ok {
		if _, ok := r.([]any); !ok {
			return fmt.Errorf("%s: required is no list", path)
		}
	}
	properties, ok := schema["properties"].(map[string]any)
	if !ok && schema["properties"] != nil {
		return fmt.Errorf("%s: properties is no object", path)
	}
	for _, name := range sortedNames(properties) {
		below, ok := properties[name].(map[string]any)
		if !ok {
			return fmt.Errorf("%s.%s: a property is an object", path, name)
		}
		if err := checkSchemaAt(path+"."+name, below); err != nil {
			return err
		}
	}
	return nil
}

func sortedNames(m map[string]any) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func matches(path string, schema, value any) error {
	s, ok := schema.(map[string]any)
	if !ok {
		return nil // true, false and what is no schema are left to the plugin
	}
	if t, ok := s["type"].(string); ok && !isType(t, value) {
		return fmt.Errorf("%s is no %s", path, t)
	}
	if enum, ok := s["enum"].([]any); ok && !slices.ContainsFunc(enum, func(e any) bool { return sameJSON(e, value) }) {
		return fmt.Errorf("%s is none of the values that the schema lists", path)
	}
	switch v := value.(type) {
	case map[string]any:
		return matchesObject(path, s, v)
	case []any:
		for i, item := range v {
			if err := matches(fmt.Sprintf("%s[%d]", path, i), s["items"], item); err != nil {
				return err
			}
		}
	}
	return nil
}

func matchesObject(path string, schema, value map[string]any) error {
	required, _ := schema["required"].([]any)
	for _, r := range required {
		if name, ok := r.(string); ok {
			if _, ok := value[name]; !ok {
				return fmt.Errorf("%s.%s is required", path, name)
			}
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	for _, name := range sortedNames(value) {
		below, known := properties[name]
		if !known && schema["additionalProperties"] == false {
			return fmt.Errorf("%s.%s is unknown; known are %s", path, name, strings.Join(sortedNames(properties), ", "))
		}
		if err := matches(path+"."+name, below, value[name]); err != nil {
			return err
		}
	}
	return nil
}

func isType(name string, value any) bool {
	switch v := value.(type) {
	case map[string]any:
		return name == "object"
	case []any:
		return name == "array"
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case nil:
		return name == "null"
	case json.Number:
		return name == "number" || name == "integer" && !strings.ContainsAny(v.String(), ".eE")
	}
	return false
}

func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
