package lab

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/scenario"
)

//go:embed catalogue/*.yaml
var catalogueFiles embed.FS

// Catalogue is every scenario that comes with Longpole, by name.
func Catalogue() ([]scenario.Scenario, error) {
	entries, err := catalogueFiles.ReadDir("catalogue")
	if err != nil {
		return nil, fmt.Errorf("lab: catalogue: %w", err)
	}
	var all []scenario.Scenario
	for _, e := range entries {
		file := path.Join("catalogue", e.Name())
		data, err := catalogueFiles.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("lab: catalogue: %w", err)
		}
		s, err := scenario.Read(file, data)
		if err != nil {
			return nil, err
		}
		if s.Name != strings.TrimSuffix(e.Name(), ".yaml") {
			return nil, fmt.Errorf("lab: %s: its name is %q; want that of the file", file, s.Name)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b scenario.Scenario) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}
