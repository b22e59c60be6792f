package node

import (
	"fmt"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/uploader"
)

// leastQuota is the smallest staging quota: less holds no few files of a usual size while they are uploaded.
const leastQuota = 1 << 20

// checkUpload refuses what could not be uploaded as it is asked for, before anything is mounted or remembered.
func checkUpload(req api.UploadRequest) error {
	usage := func(advice, format string, args ...any) error {
		return &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf(format, args...), Advice: advice}
	}
	p := uploader.Policy{Redundancy: req.Redundancy, Lifetime: req.Lifetime, AutoRenew: req.AutoRenew}
	if err := (uploader.Policy{Redundancy: p.Redundancy}).Check(); err != nil {
		return usage("--redundancy 1 has each chunk at one provider, beside its parity", "--redundancy %d: each chunk has 1 to %d providers",
			req.Redundancy, uploader.MaxCopies)
	}
	if err := p.Check(); err != nil {
		return usage("--expiry 30d is the default; with --auto-renew what is about to expire is kept on", "--expiry %v: providers keep chunks for 10s to a hundred years",
			req.Lifetime)
	}
	// Manifests, which say where all the rest is, have as many copies as may be lost and one more.
	if req.Protect != (api.Protection{}) && req.Protect.M+1 > uploader.MaxCopies {
		return usage("--protect 4,2 survives the loss of any two of six providers", "--protect %s: at most %d parity shards", req.Protect, uploader.MaxCopies-1)
	}
	if req.StagingQuota != 0 && req.StagingQuota < leastQuota {
		return usage("leave --staging-quota out to use what the disk has", "--staging-quota of %d bytes: at least 1 MiB", req.StagingQuota)
	}
	return nil
}

// tempNames are the names under which files wait for their rename.
func (u *uploadDir) tempNames() []string {
	if u.req.TempNames != nil {
		return u.req.TempNames
	}
	return u.n.cfg.Settings.TempNames
}
