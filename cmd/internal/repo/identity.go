package repo

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// makeIdentity writes a new ed25519 key unless there is one.
func makeIdentity(dir string) error {
	path := filepath.Join(dir, identityFile)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return err
	}
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(path, []byte(base64.StdEncoding.EncodeToString(raw)+"\n"), 0o600)
}

// readIdentity reads the node's key.
func readIdentity(dir string) (crypto.PrivKey, error) {
	text, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, damaged(dir, errors.New("file "+identityFile+" is missing"))
	}
	if err != nil {
		return nil, explain(dir, fmt.Errorf("open repo: %w", err))
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, damaged(dir, fmt.Errorf("read %s: %w", identityFile, err))
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		return nil, damaged(dir, fmt.Errorf("read %s: %w", identityFile, err))
	}
	return key, nil
}
