package kube

import (
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/require"
)

// imageMost bounds the image, in bytes.
const imageMost = 25_000_000

// image is the root directory of our image, built once in a test binary.
var image struct {
	sync.Mutex
	dir, root string
}

// ImageRoot returns the root directory of the image, as a container would see it, writable by root.
func ImageRoot(t *testing.T) string {
	t.Helper()
	require.Need(t, require.Image)
	if os.Getuid() != 0 {
		require.Fail(t, require.Image, "root, to run the image with its root directory as a chroot")
	}
	image.Lock()
	defer image.Unlock()
	if image.root != "" {
		return image.root
	}
	dir, err := os.MkdirTemp("", "kkv-image-")
	if err != nil {
		t.Fatal(err)
	}
	image.dir = dir
	// The context that the target "binary" needs: `make build` would put the program there.
	if err := os.CopyFS(filepath.Join(dir, "context", "deploy"), os.DirFS(filepath.Join(harness.Root(), "deploy"))); err != nil {
		t.Fatal(err)
	}
	buildKkv(t, "amd64", filepath.Join(dir, "context", "bin", "kkv"))
	buildah(t, "build", "--isolation=chroot", "--target=binary", "-f", filepath.Join(dir, "context", "deploy", "Dockerfile"), "-t", "kkv", filepath.Join(dir, "context"))
	buildah(t, "from", "--pull-never", "--name=kkv-test", "kkv")
	image.root = strings.TrimSpace(buildah(t, "mount", "kkv-test"))
	return image.root
}

// removeImage is for the end of all tests.
func removeImage() {
	if image.root != "" {
		_ = exec.Command("buildah", append(storage(), "umount", "kkv-test")...).Run()
	}
	if image.dir != "" {
		_ = os.RemoveAll(image.dir)
	}
}

func storage() []string {
	return []string{"--root=" + filepath.Join(image.dir, "root"), "--runroot=" + filepath.Join(image.dir, "run"), "--storage-driver=vfs"}
}

func buildah(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("buildah", append(storage(), args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("buildah %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// buildKkv runs the line of the Dockerfile that builds kkv, for the architecture.
func buildKkv(t *testing.T, arch, to string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(harness.Root(), "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^RUN (.*go build.*)/out/kkv (.*)$`).FindSubmatch(text)
	if line == nil {
		t.Fatal("deploy/Dockerfile does not build kkv")
	}
	cmd := exec.Command("bash", "-c", string(line[1])+to+" "+string(line[2]))
	cmd.Dir = harness.Root()
	cmd.Env = append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line[0], err, out)
	}
}

func TestImage(t *testing.T) {
	root := ImageRoot(t)
	// buildah inspect lacks the size, and buildah images rounds it; the layers are what a registry and a node hold.
	var size int64
	files := 0
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil && !strings.HasPrefix(path, filepath.Join(root, "var")) { // what TestScaledDeployment mounts
			files++
			size += info.Size()
		}
		return err
	})
	if err != nil || files != 1 || size > imageMost {
		t.Errorf("%d files, %d bytes, %v; want one of at most %d", files, size, err, imageMost)
	}
	t.Logf("the image has %d bytes", size)
	var about struct {
		OCIv1 struct {
			Config struct {
				User       string
				Entrypoint []string
			} `json:"config"`
		}
	}
	if err := json.Unmarshal([]byte(buildah(t, "inspect", "--type=image", "kkv")), &about); err != nil {
		t.Fatal(err)
	}
	c := about.OCIv1.Config
	if uid, _, _ := strings.Cut(c.User, ":"); len(c.Entrypoint) != 1 || c.Entrypoint[0] != "/kkv" {
		t.Errorf("entrypoint %q", c.Entrypoint)
	} else if n, err := strconv.Atoi(uid); err != nil || n == 0 { // Kubernetes' runAsNonRoot wants a number
		t.Errorf("user %q", c.User)
	}
}

// Both architectures are built by the Dockerfile's own line, as static programs.
func TestArchitectures(t *testing.T) {
	require.Need(t, require.Image)
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		path := filepath.Join(t.TempDir(), "kkv")
		buildKkv(t, arch, path)
		program, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		libraries, err := program.ImportedLibraries()
		if program.Machine != machine || len(libraries) > 0 || program.Section(".interp") != nil {
			t.Errorf("%s: %v, libraries %q (%v)", arch, program.Machine, libraries, err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() > imageMost {
			t.Errorf("%s: %d bytes, %v", arch, info.Size(), err)
		}
		_ = program.Close()
	}
}
