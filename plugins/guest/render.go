package guest

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/template"
)

//go:embed go/millrace.go go/native.go c/millrace.h templates
var sources embed.FS

// Spec says which project to render.
type Spec struct {
	Name     string // of the plugin: lower-case letters, digits and hyphens, at most 63
	Kind     string // one of Kinds
	Language string // one of Languages
}

// Kinds are the plugins that there are templates for.
func Kinds() []string { return []string{"dedup", "filter", "map"} }

// Languages are those that there are templates for.
func Languages() []string { return []string{"go", "c"} }

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func (s Spec) check() error {
	if !namePattern.MatchString(s.Name) {
		return fmt.Errorf("plugin name %q: lower-case letters, digits and hyphens are allowed, at most 63, beginning with a letter or digit", s.Name)
	}
	if !slices.Contains(Kinds(), s.Kind) {
		return fmt.Errorf("plugin kind %q is none of %s", s.Kind, strings.Join(Kinds(), ", "))
	}
	if !slices.Contains(Languages(), s.Language) {
		return fmt.Errorf("plugin language %q is none of %s", s.Language, strings.Join(Languages(), ", "))
	}
	return nil
}

// sdkFiles are the guest SDK's own, by language: where they lie here, and in a project.
var sdkFiles = map[string][][2]string{
	"go": {{"go/millrace.go", "millrace/millrace.go"}, {"go/native.go", "millrace/native.go"}},
	"c":  {{"c/millrace.h", "millrace.h"}},
}

// Render returns the files of a new project by slash-separated name.
func Render(s Spec) (map[string][]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, f := range sdkFiles[s.Language] {
		content, err := sources.ReadFile(f[0])
		if err != nil {
			return nil, fmt.Errorf("guest sdk file %s: %w", f[0], err)
		}
		files[f[1]] = content
	}
	// What every project of the language has, then the kind's own.
	for _, folder := range []string{"templates/" + s.Language + "/every", "templates/" + s.Language + "/" + s.Kind} {
		if err := renderFolder(files, folder, s); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// renderFolder renders each file of a folder; .tmpl is cut from names, and keeps Go files of templates out of builds.
func renderFolder(files map[string][]byte, folder string, s Spec) error {
	return fs.WalkDir(sources, folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := sources.ReadFile(name)
		if err != nil {
			return err
		}
		t, err := template.New(path.Base(name)).Option("missingkey=error").Parse(string(text))
		if err != nil {
			return fmt.Errorf("template %s: %w", name, err)
		}
		var out bytes.Buffer
		if err := t.Execute(&out, s); err != nil {
			return fmt.Errorf("template %s: %w", name, err)
		}
		target := strings.TrimSuffix(strings.TrimPrefix(name, folder+"/"), ".tmpl")
		if target == "gitignore" {
			target = ".gitignore"
		}
		files[target] = out.Bytes()
		return nil
	})
}
